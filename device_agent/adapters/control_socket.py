"""The control socket: a Unix socket, 0600, for people on the device. No port, no HTTP.

One question and one answer a connection, each a line of JSON: `{"verb": …, "args": {…}}` and
`{"status": "ok"|"error", …}`. The server's threads only read, queue and wait for the loop's answer.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 1024 * 1024
"""A backup travels in a line, as base64."""
_READ_S = 10.0
_ANSWER_S = 60.0
_BACKLOG = 8

Ask = Callable[[str, Mapping[str, Any], Callable[[Mapping[str, Any]], None]], None]
"""verb, args, and what to call with the answer."""


class NoAgent(Exception):  # noqa: N818 - a state of the world
    """Nobody answers at the control socket."""


class ControlSocket:
    """Listens from `start` to `close`."""

    def __init__(self, path: Path, ask: Ask) -> None:
        self._path = path
        self._ask = ask
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def start(self) -> None:
        """Raises OSError when the socket cannot be made. A leftover of a killed agent is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.listen(_BACKLOG)
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="control-answer", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that hangs up, or talks nonsense, is its own trouble.
        with contextlib.suppress(OSError), connection:
            connection.settimeout(_READ_S)
            connection.sendall(json.dumps(self._answer(connection)).encode() + b"\n")

    def _answer(self, connection: socket.socket) -> Mapping[str, Any]:
        try:
            question = json.loads(_line(connection))
            verb, args = question["verb"], question.get("args", {})
            if not isinstance(verb, str) or not isinstance(args, dict):
                raise TypeError  # noqa: TRY301
        except (ValueError, TypeError, KeyError, RecursionError):
            return _error("malformed", 'a question is a line of JSON: {"verb": …, "args": {…}}')
        answered = threading.Event()
        answers: list[Mapping[str, Any]] = []

        def reply(answer: Mapping[str, Any]) -> None:
            answers.append(answer)
            answered.set()

        self._ask(verb, args, reply)
        if not answered.wait(_ANSWER_S):
            return _error("busy", f"the agent did not answer within {_ANSWER_S:g} s")
        return answers[0]


def _error(code: str, message: str) -> Mapping[str, Any]:
    return {"status": "error", "error": {"code": code, "message": message, "errors": []}}


def ask(path: Path, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a running agent. Raises `NoAgent` when none listens, OSError or ValueError when the answer is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S + _READ_S)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoAgent(f"no agent listens at {path}") from error
        connection.sendall(json.dumps({"verb": verb, "args": args}).encode() + b"\n")
        answer = json.loads(_line(connection))
    if not isinstance(answer, dict):
        raise TypeError("the agent's answer is no object")
    return answer


def _line(connection: socket.socket) -> bytes:
    chunks, size = [], 0
    while chunk := connection.recv(65536):
        chunks.append(chunk)
        size += len(chunk)
        if chunk.endswith(b"\n"):
            break
        if size > MOST_BYTES:
            raise ValueError("too long")
    return b"".join(chunks)
