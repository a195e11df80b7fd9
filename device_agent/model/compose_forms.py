"""Compose's names, paths and short forms: one value of a document in, its canonical value out.

Pure functions; each raises `NotValid` or `NotSupported`. Where the Compose Specification leaves a form to the engine,
the rules are those of the engine's own command line.
"""

import posixpath
import re
import shlex

from device_agent.model.compose import Device, Mount, Restart
from device_agent.model.compose_units import NotSupported, NotValid, integer, kind, one_of, string, text
from device_agent.model.target import Json

APP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
KEY_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_ENGINE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

_SHORTEST_NAME = 2
"""Of a container, as the engine takes it."""


def engine_name(value: Json) -> str:
    """A name that an object can have on the engine."""
    if not _ENGINE_NAME.fullmatch(text(value)):
        raise NotValid("must start with a letter or a digit and contain only letters, digits, `_`, `.` and `-`")
    return str(value)


_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
_LONGEST_REFERENCE = 512


def image(value: Json) -> str:
    """An image reference by the distribution project's grammar, or an image id."""
    reference = text(value)
    if len(reference) <= _LONGEST_REFERENCE and _REFERENCE.fullmatch(reference):
        return reference
    raise NotValid("not an image reference")


def container_name(value: Json) -> str:
    if len(engine_name(value)) < _SHORTEST_NAME:
        raise NotValid(f"has at least {_SHORTEST_NAME} characters")
    return str(value)


def platform(value: Json) -> str:
    """`OS[/ARCH[/VARIANT]]`, in lower case."""
    if not re.fullmatch(r"[a-zA-Z0-9_.-]+(?:/[a-zA-Z0-9_.-]+){0,2}", text(value)):
        raise NotValid("expected a platform such as linux/arm64 or linux/arm/v7")
    return str(value).lower()


def container_path(value: Json) -> str:
    """An absolute path, without a trailing slash and doubled or dotted parts."""
    path = text(value)
    if not path.startswith("/"):
        raise NotValid("expected an absolute path in the container")
    return posixpath.normpath("/" + path.lstrip("/"))


def mount_point(value: Json) -> str:
    """Where something is mounted in the container: an absolute path, not `/`."""
    path = container_path(value)
    if path == "/":
        raise NotValid("nothing can be mounted on `/`")
    return path


def host_path(value: Json) -> str:
    """An absolute path on the host; what is relative to a Compose file has no meaning on a device."""
    path = text(value)
    if not path.startswith("/"):
        raise NotValid("expected an absolute path on the host: cloud-sim publish resolves relative ones and `~`")
    return posixpath.normpath("/" + path.lstrip("/"))


_CAPABILITY = re.compile(r"[A-Z][A-Z0-9_]*")


def capability(value: Json) -> str:
    """A Linux capability without its prefix: `CAP_NET_ADMIN`, `net_admin` → `NET_ADMIN`."""
    name = text(value).upper().removeprefix("CAP_")
    if not _CAPABILITY.fullmatch(name):
        raise NotValid("expected a capability such as NET_ADMIN")
    return name


def signal(value: Json) -> str:
    if not re.fullmatch(r"(?:SIG)?[A-Z][A-Z0-9]*(?:[+-][0-9]{1,2})?|[0-9]{1,2}", text(value)):
        raise NotValid("expected a signal such as SIGTERM")
    return str(value)


# --------------------------------------------------------------------------------------------- short forms


_LONGEST_COMMAND = 32_768
"""Splitting takes time with the square of a word's length."""


def words(value: Json) -> tuple[str, ...]:
    """A command written as one string, split as a shell would, without running one."""
    if len(string(value)) > _LONGEST_COMMAND:
        raise NotValid("is too long to be split into words: write it as a list")
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise NotValid(f"cannot be split into words: {str(error).lower()}") from None


def restart(value: Json) -> Restart:
    """`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`."""
    if value is False:
        raise NotValid('expected a string: write "no" in quotes, a bare no is a boolean in YAML')
    policy, colon, retries = string(value).partition(":")
    match policy:
        case "on-failure":
            return Restart(policy=policy, max_retries=integer(retries, highest=2**31 - 1) if colon else 0)
        case "no" | "always" | "unless-stopped" if not colon:
            return Restart(policy=policy)
        case _:
            raise NotValid('must be one of: "no", always, unless-stopped, on-failure, on-failure:N')


PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_NO_EFFECT_ON_LINUX = ("cached", "delegated", "consistent")


def _mount_options(written: str, *, bind: bool) -> dict[str, Json]:
    fields: dict[str, Json] = {}
    for option in written.split(","):
        match option:
            case "rw" | "ro":
                fields["read_only"] = option == "ro"
            case "z" | "Z" if bind:
                fields["selinux"] = option
            case "nocopy" if not bind:
                fields["nocopy"] = True
            case _ if bind and option in PROPAGATIONS:
                fields["propagation"] = option
            case "z" | "Z":
                pass  # a volume is labelled by the engine itself
            case _ if option in _NO_EFFECT_ON_LINUX:
                pass
            case _:
                raise NotValid(f"`{option}` is not an option of a {'bind mount' if bind else 'volume'}")
    return fields


def mount(value: Json) -> Mount:
    """The short form `[SOURCE:]TARGET[:OPTIONS]`: a named volume, a path on the host, or an anonymous volume."""
    parts = text(value).split(":")
    if "" in parts:
        raise NotValid("an empty part between colons")
    match parts:
        case [target]:
            return Mount(type="volume", target=mount_point(target))
        case [source, target]:
            options = ""
        case [source, target, options]:
            pass
        case _:
            raise NotValid("too many colons: use the long form")
    if len(source) == 1 and source.isalpha():
        raise NotValid("one letter before a colon is a drive to Compose: use the long form for a volume of that name")
    bind = source[0] in "./~\\"
    return Mount(
        type="bind" if bind else "volume",
        source=host_path(source) if bind else source,
        target=mount_point(target),
        **(_mount_options(options, bind=bind) if options else {}),
    )


_OTHER_MOUNTS = {
    "npipe": "a named pipe is for Windows containers",
    "cluster": "a cluster volume is a swarm's: use a volume of a driver that the engine has",
    "image": "an image cannot be mounted: mount a volume that a service of that image fills",
}


def mount_type(value: Json) -> str:
    if isinstance(value, str) and value in _OTHER_MOUNTS:
        raise NotSupported(_OTHER_MOUNTS[value])
    return one_of("volume", "bind", "tmpfs")(value)


def tmpfs(value: Json) -> str:
    """`PATH[:OPTIONS]`; the options are the kernel's."""
    path, colon, options = text(value).partition(":")
    return mount_point(path) + colon + options


def device_permissions(value: Json) -> str:
    letters = text(value)
    if not set(letters) <= set("rwm"):
        raise NotValid("permissions are letters of `rwm`: read, write, mknod")
    return "".join(letter for letter in "rwm" if letter in letters)


def device_source(value: Json) -> str:
    path = text(value)
    if "=" in path and not path.startswith("/"):
        raise NotSupported(f"a CDI device is a request: write `gpus: [{{driver: cdi, device_ids: [{path}]}}]`")
    return host_path(path)


def device(value: Json) -> Device:
    """The short form `HOST[:CONTAINER[:PERMISSIONS]]`."""
    source, *inside = text(value).split(":")
    path = device_source(source)
    match inside:
        case []:
            return Device(source=path, target=path)
        case [target]:
            return Device(source=path, target=container_path(target))
        case [target, permissions]:
            return Device(source=path, target=container_path(target), permissions=device_permissions(permissions))
        case _:
            raise NotValid("too many colons: use the long form")


def health_test(value: Json) -> tuple[str, ...] | None:
    """As the engine takes it; an empty list is the image's."""
    if isinstance(value, str):
        return ("CMD-SHELL", text(value))
    if not isinstance(value, list):
        raise NotValid(f"expected a string or a list, not {kind(value)}")
    if not value:
        return None
    for index, word in enumerate(value):
        if not isinstance(word, str):
            raise NotValid(f"expected a string, not {kind(word)}", index)
    if value[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise NotValid("the first item must be one of: NONE, CMD, CMD-SHELL", 0)
    if (value[0] == "NONE") != (len(value) == 1):
        raise NotValid("NONE stands alone, CMD and CMD-SHELL are followed by what to run")
    return tuple(value)
