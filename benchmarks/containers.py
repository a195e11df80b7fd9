"""Containers that are started by docker's command line, as people do."""

import subprocess


class NotStarted(Exception):  # noqa: N818 - a state of the machine, told to who measures
    """There is no docker, no engine, or no such container; the message has docker's own words."""


def started(*arguments: str) -> str:
    """The id of a container that `docker run` has started in the background. Raises `NotStarted`."""
    try:
        ran = subprocess.run(["docker", "run", "-d", "--rm", *arguments], check=False, capture_output=True, text=True)
    except OSError as error:
        raise NotStarted(f"a container engine and its command `docker` are needed: {error}") from error
    if ran.returncode:
        raise NotStarted(f"`docker run {arguments[-1]}` has failed: {ran.stderr.strip()}")
    return ran.stdout.strip()
