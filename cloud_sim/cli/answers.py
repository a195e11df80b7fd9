"""Answers of devices, as people read them. What many devices answer alike is said once."""

from collections.abc import Iterator, Mapping, Sequence

from device_agent.model.target import Json
from device_agent.wire.commands import OK, RUNNING, Answer
from device_agent.wire.fields import Fields
from device_agent.wire.log import line_of


def answer_body(answer: Answer) -> dict[str, Json]:
    """For programs: as the device sent it."""
    body: dict[str, Json] = {"device": answer.device, "id": answer.id, "status": answer.status}
    if answer.status in (OK, RUNNING):
        return {**body, "result": answer.result}
    errors: list[Json] = [{"pointer": problem.pointer, "message": problem.message} for problem in answer.errors]
    return {**body, "error": {"code": answer.code, "message": answer.message, "errors": errors}}


def paragraphs(verb: str, answers: Mapping[str, Answer]) -> Iterator[tuple[list[str], str, str]]:
    """(devices, status, text) of those that have answered alike."""
    alike: dict[tuple[str, str], list[str]] = {}
    for device, answer in sorted(answers.items()):
        alike.setdefault((answer.status, _text(verb, answer)), []).append(device)
    for (status, text), devices in alike.items():
        yield devices, status, text


def _text(verb: str, answer: Answer) -> str:
    if answer.status == RUNNING:
        return "still running"
    if answer.status != OK:
        places = [f"{problem.pointer}: {problem.message}" for problem in answer.errors]
        return "\n  ".join([f"refused ({answer.code}): {answer.message}", *places])
    result = answer.result if isinstance(answer.result, dict) else {}
    match verb:
        case "report":
            return "\n".join(_report(result))
        case "plan":
            return "\n".join([str(result.get("text")), *_blocked(result)])
        case "explain":
            return str(result.get("text"))
        case "logs":
            return "\n".join(_lines(result)) or "it has written nothing"
        case _:
            return _words(result) or "done"


def _report(result: Mapping[str, Json]) -> Iterator[str]:
    have = _inner(result, "have")
    versions = [f"{scope} {_version(target)}" for scope, target in have.items() if isinstance(target, dict)]
    word = "converged" if result.get("converged") else "not converged"
    yield f"{word} · target: {', '.join(versions) or 'none'} · agent {result.get('agent')}"
    for app, told in _inner(result, "apps").items():
        if not isinstance(told, dict):
            continue
        if reason := _why(told):
            yield f"{app}  {told.get('phase')}  {reason}"
        for name, service in _inner(told, "services").items():
            if isinstance(service, dict):
                words = (f"{app}/{name}", service.get("status"), told.get("release"), _why(service))
                yield "  ".join(str(word) for word in words if word)


def _version(target: Mapping[str, Json]) -> str:
    return f"{target.get('epoch')}.{target.get('revision')}"


def _why(told: Mapping[str, Json]) -> str:
    reason = _inner(told, "reason")
    return f"{reason.get('code')}: {reason.get('message')}" if reason else ""


def _blocked(result: Mapping[str, Json]) -> Iterator[str]:
    for app, places in _inner(result, "blocked").items():
        for place in places if isinstance(places, list) else ():
            if isinstance(place, dict):
                yield f"{app}: {place.get('subject')} is blocked ({place.get('code')}): {place.get('message')}"


def _lines(result: Mapping[str, Json]) -> Iterator[str]:
    for line in Fields(dict(result)).items("lines"):
        told = line_of(line)
        yield f"{told.container}  {told.text}" if told.container else told.text


def _words(result: Mapping[str, Json]) -> str:
    return "\n".join(f"{key}: {_word(value)}" for key, value in result.items() if value not in (None, [], {}))


def _word(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(map(_word, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(inner)}" for key, inner in value.items())
    return str(value)


def _inner(body: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def heading(devices: Sequence[str]) -> str:
    """The names, or how many there are, where they do not fit in a line."""
    names = ", ".join(devices)
    return names if len(names) <= _LONGEST else f"{devices[0]} and {len(devices) - 1} more"


_LONGEST = 100
