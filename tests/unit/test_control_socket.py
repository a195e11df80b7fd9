"""The control socket: a line in, a line out, and nothing that a client does hurts the agent."""

import socket
import stat
import threading

import pytest

from device_agent.adapters.control_socket import ControlSocket, NoAgent, ask
from tests.eventually import eventually


def echo(verb, args, reply):
    reply({"status": "ok", "result": {"verb": verb, **args}})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def server(path):
    made = ControlSocket(path, echo)
    made.start()
    yield made
    made.close()


def raw(path, content: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(content)
        return connection.recv(65536)


def test_a_question_is_answered(server, path):
    assert ask(path, "status", {"a": 1}) == {"status": "ok", "result": {"verb": "status", "a": 1}}


def test_only_its_owner_may_ask(server, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_where_no_agent_listens(path):
    with pytest.raises(NoAgent):
        ask(path, "status", {})


def test_the_leftover_of_a_killed_agent_is_replaced(path):
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    with pytest.raises(NoAgent):
        ask(path, "status", {})
    made = ControlSocket(path, echo)
    made.start()
    assert ask(path, "status", {})["status"] == "ok"
    made.close()


def test_it_is_gone_after_the_end(server, path):
    server.close()
    assert not path.exists()
    server.close()


@pytest.mark.parametrize(
    "content",
    [b"\n", b"{\n", b"[]\n", b"1\n", b'{"verb": 1}\n', b'{"verb": "a", "args": []}\n', b"\xff\n", b"[" * 9999 + b"\n"],
)
def test_nonsense_is_answered(server, path, content):
    assert b'"malformed"' in raw(path, content)
    assert ask(path, "status", {})["status"] == "ok"


def test_a_client_that_hangs_up_disturbs_nobody(server, path):
    for _ in range(5):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            connection.sendall(b'{"verb"')
    assert ask(path, "status", {})["status"] == "ok"


def test_several_are_answered_at_once(path):
    waiting = []
    made = ControlSocket(path, lambda _verb, _args, reply: waiting.append(reply))
    made.start()
    answers: list[dict] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(path, "slow", {}))) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(waiting) == 4, 5, "all have asked")
    for number, reply in enumerate(waiting):
        reply({"status": "ok", "result": number})
    for thread in threads:
        thread.join(5)
    assert sorted(answer["result"] for answer in answers) == [0, 1, 2, 3]
    made.close()


def test_a_large_answer_arrives_whole(path):
    made = ControlSocket(path, lambda _verb, _args, reply: reply({"status": "ok", "result": "x" * 3_000_000}))
    made.start()
    assert len(ask(path, "backup", {})["result"]) == 3_000_000
    made.close()
