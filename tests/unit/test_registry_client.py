"""The registry's token flow, and to whom credentials are given: by a little registry that is as odd as need be."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from device_agent.adapters.registry import MOST_BYTES, Layers, Unknown, asked_to_wait_s, layers
from device_agent.adapters.registry_auth import Login

LOGIN = Login("me", "secret")
BASIC = "Basic " + base64.b64encode(b"me:secret").decode()
MANIFEST = {"config": {"digest": "sha256:c"}, "layers": [{"size": 5}, {"size": 7}]}
DATE = "Tue, 24 Nov 2026 12:00:00 GMT"
CONFIG = {"rootfs": {"diff_ids": ["sha256:a", "sha256:b"]}}


class Odd(ThreadingHTTPServer):
    """Answers by path; remembers what was asked, with which `Authorization`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, str | None]] = []
        self.answers: dict[str, Callable[[str | None], tuple[int, dict[str, str], object]]] = {}

    def layers(self, login: Login | None = LOGIN) -> Layers:
        return layers(f"{self.host}/a/b:1", "linux/amd64", login)


class _Handler(BaseHTTPRequestHandler):
    server: Odd

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        self.server.asked.append((self.path, given))
        path = self.path.partition("?")[0]
        status, headers, body = self.server.answers.get(path, lambda _: (404, {}, {}))(given)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response_only(status)
        for name, value in {"Date": DATE, **headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[Odd]:
    with Odd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def wanting(authorization: str, challenge: str, body: object):
    def answer(given: str | None) -> tuple[int, dict[str, str], object]:
        return (200, {}, body) if given == authorization else (401, {"WWW-Authenticate": challenge}, {})

    return answer


def test_a_token_is_fetched_once_with_the_credentials(odd: Odd) -> None:
    challenge = f'Bearer realm="http://{odd.host}/token",service="here",scope="repository:a/b:pull"'
    odd.answers = {
        "/v2/a/b/manifests/1": wanting("Bearer t1", challenge, MANIFEST),
        "/v2/a/b/blobs/sha256:c": wanting("Bearer t1", challenge, CONFIG),
        "/token": wanting(BASIC, "Basic", {"token": "t1"}),
    }

    assert odd.layers() == Layers("sha256:c", (5, 7), ("sha256:a", "sha256:b"))

    assert [path for path, _ in odd.asked if path.startswith("/token")] == [
        "/token?service=here&scope=repository%3Aa%2Fb%3Apull"
    ]
    assert ("/v2/a/b/manifests/1", BASIC) not in odd.asked, "the password goes to where tokens are given"


def test_where_it_redirects_to_gets_no_credentials(odd: Odd) -> None:
    odd.answers = {
        "/v2/a/b/manifests/1": wanting(BASIC, 'Basic realm="here"', MANIFEST),
        "/v2/a/b/blobs/sha256:c": lambda _: (307, {"Location": f"http://{odd.host}/elsewhere"}, {}),
        "/elsewhere": lambda _: (200, {}, CONFIG),
    }

    assert odd.layers().sizes == (5, 7)

    assert ("/elsewhere", None) in odd.asked


@pytest.mark.parametrize(
    "answer",
    [
        (401, {"WWW-Authenticate": "Negotiate"}, {}),
        (401, {}, {}),
        (403, {}, {}),
        (429, {"Retry-After": "60"}, {}),
        (500, {}, {}),
        (200, {}, b"<html>"),
        (200, {}, []),
        (200, {}, {}),
        (200, {}, {"config": None, "layers": 5}),
        (200, {}, {"manifests": [None]}),
        (200, {}, b" " * (MOST_BYTES + 1)),
    ],
    ids=range(11),
)
def test_whatever_it_answers_is_at_worst_unknown(odd: Odd, answer: tuple[int, dict[str, str], object]) -> None:
    odd.answers = {"/v2/a/b/manifests/1": lambda _: answer}
    with pytest.raises(Unknown) as caught:
        odd.layers()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "60"}, 60.0),
        ({"Retry-After": "Tue, 24 Nov 2026 12:01:30 GMT"}, 90.0),
        ({"Retry-After": "Tue, 24 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "-1"}, 0.0),
        ({}, 0.0),
    ],
)
def test_how_long_a_registry_wants_to_be_left_alone(odd, headers, wait_s):
    odd.answers["/v2/a/b/manifests/1"] = lambda _: (429, headers, {})
    assert asked_to_wait_s(f"{odd.host}/a/b:1", None) == wait_s


def test_a_registry_that_says_nothing_more_is_not_waited_for(odd):
    odd.answers["/v2/a/b/manifests/1"] = lambda _: (200, {}, MANIFEST)
    assert asked_to_wait_s(f"{odd.host}/a/b:1", None) == 0
    assert asked_to_wait_s("127.0.0.1:1/a/b:1", None) == 0
