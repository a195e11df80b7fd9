"""What the adapter concludes from an engine that hangs, breaks, restarts or lies: over a socket that plays one."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.docker_http import EngineHttp
from device_agent.adapters.docker_pull import Pulling, pull_path
from device_agent.model.errors import Cancelled, EngineAway, EngineError, Kind
from device_agent.model.observed import EngineEvent
from device_agent.ports import PullProgress
from tests.eventually import eventually

DIGEST = "sha256:" + "a" * 64
Handler = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "FakeDaemon"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        for path, handle in self.server.answers.items():
            if path in self.path:
                with suppress(BrokenPipeError):  # who asked has given up
                    handle(self)
                return
        with suppress(BrokenPipeError):
            self.send_error(404)

    do_POST = do_DELETE = do_GET  # noqa: N815 - what they must be called

    def answer(self, document: object, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, *documents: object) -> None:
        for document in documents:
            line = json.dumps(document).encode() + b"\r\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        self.close_connection = True

    def hang(self) -> None:
        self.server.over.wait(10)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


class FakeDaemon(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Request)
        self.url = f"unix://{path}"
        self.over = threading.Event()
        self.asked: list[str] = []
        self.answers: dict[str, Handler] = {
            "/version": lambda r: r.answer({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
            "/_ping": lambda r: r.answer("OK"),
        }


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    server = FakeDaemon(tmp_path / "d.sock")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def engine(daemon: FakeDaemon) -> Iterator[DockerEngine]:
    engine = DockerEngine(daemon.url, "f/d", timeout_s=0.3)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [("1.41", "1.12", (1, 41)), ("1.52", "1.44", (1, 47)), ("1.60", "1.50", (1, 50)), ("1.47", None, (1, 47))],
)
def test_the_newest_version_that_both_know(daemon: FakeDaemon, newest: str, oldest: str | None, spoken: object) -> None:
    daemon.answers["/version"] = lambda r: r.answer({"ApiVersion": newest, "MinAPIVersion": oldest})
    http = EngineHttp(daemon.url)

    assert http.api() == spoken
    http.away()


@pytest.mark.parametrize(("started_at", "removed"), [("0001-01-01T00:00:00Z", 1), ("2026-11-24T17:06:45Z", 0)])
def test_what_an_engine_killed_in_the_middle_of_a_start_left_is_made_anew(
    daemon: FakeDaemon, engine: DockerEngine, started_at: str, removed: int
) -> None:
    id_ = "76" * 32
    daemon.answers["/start"] = lambda r: r.answer({"message": f"task {id_}: already exists: unknown"}, 500)
    daemon.answers[f"/containers/{id_}/json"] = lambda r: r.answer({"State": {"StartedAt": started_at}})
    daemon.answers[f"/containers/{id_}?"] = lambda r: r.answer({})

    with pytest.raises(EngineError) as failed:
        engine.start(id_)

    assert (failed.value.code, failed.value.kind) == ("start_left_behind", Kind.OUTSIDE)
    assert sum(f"/containers/{id_}?" in asked and "force=True" in asked for asked in daemon.asked) == removed


def test_the_version_is_asked_again_after_the_engine_was_away(daemon: FakeDaemon, engine: DockerEngine) -> None:
    daemon.answers["/start"] = Request.cut
    with pytest.raises(EngineAway):
        engine.start("a")
    daemon.answers["/version"] = lambda r: r.answer({"ApiVersion": "1.45", "MinAPIVersion": "1.24"})
    daemon.answers["/start"] = lambda r: r.answer({})

    engine.start("a")

    assert daemon.asked[-1] == "/v1.45/containers/a/start"


def test_an_address_of_another_kind_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="unix://"):
        DockerEngine("ssh://host", "f/d")


@pytest.mark.parametrize("call", [lambda e: e.start("a"), lambda e: e.observe()], ids=["change", "look"])
def test_one_slow_call_is_a_time_out_while_the_engine_answers(
    daemon: FakeDaemon, engine: DockerEngine, call: Callable[[DockerEngine], object]
) -> None:
    daemon.answers["/containers/"] = Request.hang

    with pytest.raises(EngineError) as caught:
        call(engine)

    assert (caught.value.code, caught.value.kind) == ("timeout", Kind.TEMPORARY)


@pytest.mark.parametrize("call", [lambda e: e.start("a"), lambda e: e.observe()], ids=["change", "look"])
def test_an_engine_that_hangs_altogether_is_away(
    daemon: FakeDaemon, engine: DockerEngine, call: Callable[[DockerEngine], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.adapters.docker_http.PING_S", 0.2)
    daemon.answers["/containers/"] = Request.hang
    daemon.answers["/_ping"] = Request.hang

    with pytest.raises(EngineAway):
        call(engine)


def test_a_stop_is_waited_for_as_long_as_its_grace(daemon: FakeDaemon, engine: DockerEngine) -> None:
    def slow(request: Request) -> None:
        daemon.over.wait(0.6)  # longer than the time limit of a call
        request.answer({})

    daemon.answers["/stop"] = slow

    engine.stop("a", 0.5)

    assert daemon.asked[-1] == "/v1.41/containers/a/stop?t=1"


def test_connections_that_the_engine_has_closed_meanwhile_are_not_used_again(
    daemon: FakeDaemon, engine: DockerEngine
) -> None:
    def answer_and_close(request: Request) -> None:
        request.answer([])
        request.close_connection = True

    daemon.answers |= {"/containers/json": answer_and_close, "/networks": answer_and_close, "/images": answer_and_close}
    daemon.answers["/volumes"] = lambda r: r.answer({"Volumes": None})

    for _ in range(3):
        assert engine.observe().containers == ()


def test_an_answer_that_breaks_off_is_an_engine_that_is_away(daemon: FakeDaemon, engine: DockerEngine) -> None:
    def half(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"[")
        request.close_connection = True

    daemon.answers["/containers/json"] = half

    with pytest.raises(EngineAway):
        engine.observe()


def test_an_event_stream_that_is_cut_is_an_engine_that_is_away(daemon: FakeDaemon, engine: DockerEngine) -> None:
    def events(request: Request) -> None:
        request.begin()
        request.chunk({"Type": "image", "Action": "pull", "Actor": {"ID": "a:1"}})
        request.cut()

    daemon.answers["/events"] = events
    seen: list[EngineEvent] = []

    with pytest.raises(EngineAway):
        seen.extend(engine.events(threading.Event()))

    assert [e.action for e in seen] == ["open", "pull"]


def test_an_event_stream_that_ends_ends(daemon: FakeDaemon, engine: DockerEngine) -> None:
    def events(request: Request) -> None:
        request.begin()
        request.end()

    daemon.answers["/events"] = events

    assert [e.action for e in engine.events(threading.Event())] == ["open"]


def test_images_are_listed_again_only_when_one_has_changed(daemon: FakeDaemon, engine: DockerEngine) -> None:
    go, seen, stop = threading.Event(), list[EngineEvent](), threading.Event()

    def events(request: Request) -> None:
        request.begin()
        go.wait(5)
        request.chunk({"Type": "image", "Action": "untag", "Actor": {"ID": "a:1"}})
        request.hang()

    daemon.answers |= {
        "/events": events,
        "/containers/json": lambda r: r.answer([]),
        "/networks": lambda r: r.answer([]),
    }
    daemon.answers["/volumes"] = lambda r: r.answer({"Volumes": None})
    daemon.answers["/images/json"] = lambda r: r.answer([{"Id": DIGEST, "RepoTags": ["a:1"], "RepoDigests": None}])

    def listings() -> int:
        return sum(path.endswith("/images/json") for path in daemon.asked)

    engine.observe()
    engine.observe()
    assert listings() == 2, "nobody watches: they may have changed"
    thread = threading.Thread(target=lambda: seen.extend(engine.events(stop)))
    thread.start()
    eventually(lambda: any("/events" in path for path in daemon.asked), 5, "the stream is asked for")
    eventually(lambda: engine.observe() and listings() and engine._image_list.trusted(), 5, "the stream is open")
    before = listings()
    assert engine.observe().images == {"docker.io/library/a:1": DIGEST, DIGEST: DIGEST}
    assert listings() == before
    engine.observe(None)
    assert listings() == before + 1, "a deep look trusts nothing"

    go.set()
    eventually(lambda: engine._image_list.trusted() is None, 5, "the change is told")
    engine.observe()
    assert listings() == before + 2
    stop.set()
    thread.join(2)
    assert not thread.is_alive()


def pulling(*documents: object, cut: bool = False) -> Handler:
    def handle(request: Request) -> None:
        request.begin()
        request.chunk(*documents)
        request.cut() if cut else request.end()

    return handle


def pull(engine: DockerEngine, image: str = "r.io/a/b:1", cancel: threading.Event | None = None) -> list[PullProgress]:
    told: list[PullProgress] = []
    engine.pull(image, None, told.append, cancel or threading.Event())
    return told


def test_a_pull(daemon: FakeDaemon, engine: DockerEngine) -> None:
    daemon.answers["/images/create"] = pulling(
        {"status": "Pulling from a/b", "id": "1"},
        {"status": "Downloading", "id": "x", "progressDetail": {"current": 5, "total": 10}},
        {"status": "Download complete", "id": "x"},
        {"status": f"Digest: {DIGEST}"},
        {"status": "Status: Downloaded newer image for r.io/a/b:1"},
    )
    daemon.answers["/images/r.io"] = lambda r: r.answer({"Id": "sha256:1", "RepoDigests": [f"r.io/a/b@{DIGEST}"]})

    told = pull(engine)

    assert [(p.done, p.total) for p in told] == [(5, 10), (10, 10)]
    assert daemon.asked[-2] == "/v1.41/images/create?fromImage=r.io%2Fa%2Fb&tag=1"


def test_a_failure_comes_under_http_200(daemon: FakeDaemon, engine: DockerEngine) -> None:
    message = "manifest for r.io/a/b:1 not found: manifest unknown"
    daemon.answers["/images/create"] = pulling({"errorDetail": {"message": message}, "error": message})

    with pytest.raises(EngineError) as caught:
        pull(engine)

    assert caught.value.code == "no_such_image"


def test_the_older_image_of_that_name_is_not_taken_for_the_new_one(daemon: FakeDaemon, engine: DockerEngine) -> None:
    daemon.answers["/images/create"] = pulling({"status": f"Digest: {DIGEST}"})
    daemon.answers["/images/r.io"] = lambda r: r.answer(
        {"Id": "sha256:0", "RepoDigests": [f"r.io/a/b@sha256:{'b' * 64}"]}
    )

    with pytest.raises(EngineError) as caught:
        pull(engine)

    assert (caught.value.code, caught.value.kind) == ("pull_incomplete", Kind.TEMPORARY)


def test_a_pull_that_is_cut_has_not_succeeded(daemon: FakeDaemon, engine: DockerEngine) -> None:
    daemon.answers["/images/create"] = pulling({"status": "Pulling from a/b", "id": "1"}, cut=True)

    with pytest.raises(EngineAway):
        pull(engine)


def test_a_pull_that_stands_still_is_given_up(
    daemon: FakeDaemon, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agent.adapters.docker_pull.SILENCE_S", 0.2)

    def stall(request: Request) -> None:
        request.begin()
        request.chunk({"status": "Pulling from a/b", "id": "1"})
        request.hang()

    daemon.answers["/images/create"] = stall

    with pytest.raises(EngineError) as caught:
        pull(engine)

    assert (caught.value.code, caught.value.kind) == ("pull_stalled", Kind.TEMPORARY)


def test_a_pull_is_given_up_soon_when_it_is_not_wanted_any_more(daemon: FakeDaemon, engine: DockerEngine) -> None:
    cancel = threading.Event()

    def stall(request: Request) -> None:
        request.begin()
        request.chunk({"status": "Pulling from a/b", "id": "1"})
        cancel.set()
        request.hang()

    daemon.answers["/images/create"] = stall

    with pytest.raises(Cancelled):
        pull(engine, cancel=cancel)


def test_an_image_id_cannot_be_pulled(engine: DockerEngine) -> None:
    with pytest.raises(EngineError) as caught:
        pull(engine, DIGEST)

    assert (caught.value.code, caught.value.kind) == ("no_such_image", Kind.TARGET)


@pytest.mark.parametrize(
    ("reference", "query"),
    [
        ("a", "fromImage=a&tag=latest"),
        ("a:1", "fromImage=a&tag=1"),
        ("r:5000/a", "fromImage=r%3A5000%2Fa&tag=latest"),
        ("r:5000/a:1", "fromImage=r%3A5000%2Fa&tag=1"),
        (f"r:5000/a:1@{DIGEST}", f"fromImage=r%3A5000%2Fa&tag=sha256%3A{'a' * 64}"),
    ],
)
def test_a_name_is_never_pulled_without_a_tag(reference: str, query: str) -> None:
    assert pull_path(reference) == f"/images/create?{query}"


def test_progress_is_told_four_times_a_second_at_most() -> None:
    now, told = [0.0], list[PullProgress]()
    pull = Pulling("a:1", told.append, lambda: now[0])
    for layer in ("x", "y"):
        for current in range(1, 101):
            now[0] += 0.01
            detail = {"current": current, "total": 100}
            pull.line(json.dumps({"status": "Downloading", "id": layer, "progressDetail": detail}).encode())
    pull.end()

    assert len(told) <= 10
    assert told[-1] == PullProgress("a:1", 200, 200)
