"""What the worst messages cost: memory that is bounded whatever they are, and never anything but a refusal."""

import json

import pytest

from device_agent.core.policy import Policy, offences
from device_agent.model.errors import MOST_PROBLEMS, Refused
from device_agent.model.validate import MOST, validate_apps
from device_agent.wire.payload import parse
from device_agent.wire.target import check_keys
from tests.builders import OPEN, app, document, service
from tests.hostile import INFLATED, MIB

LARGEST = 32 * MIB


def test_reading_stops_where_nobody_reads_on() -> None:
    for apps, code in (
        ({"web": app(api=service(ports=["x"] * 20_000))}, "invalid"),
        ({"web": app(api=service(**{f"k{n}": 1 for n in range(20_000)}))}, "unsupported"),
        ({f"a{n}": {} for n in range(MOST)}, "invalid"),
    ):
        with pytest.raises(Refused) as refused:
            validate_apps(apps)
        assert refused.value.code == code
        assert len(refused.value.problems) == MOST_PROBLEMS
        assert refused.value.message.endswith("and maybe more")


def test_a_mesh_has_more_circles_than_are_told() -> None:
    names = [f"s{n}" for n in range(60)]
    with pytest.raises(Refused) as refused:
        validate_apps({"web": app(**{n: service(depends_on=[o for o in names if o != n]) for n in names})})
    assert (refused.value.code, len(refused.value.problems)) == ("cycle", MOST_PROBLEMS)


def test_warnings_end_somewhere_too() -> None:
    parsed = validate_apps({"web": app(api=service(**{f"x-{n}": 1 for n in range(5_000)}))})
    assert len(parsed.warnings) == MOST_PROBLEMS


def test_a_policy_tells_as_many_offences_as_are_read() -> None:
    apps = {"web": app(api=service(cap_add=[f"C{n}" for n in range(5_000)]))}
    assert len(offences(Policy(), validate_apps(apps).apps, apps)) == MOST_PROBLEMS
    assert offences(OPEN, validate_apps(apps).apps, apps) == ()


def test_the_keys_of_a_target_are_told_up_to_a_count() -> None:
    body = document(**{f"k{n}": 1 for n in range(5_000)})
    with pytest.raises(Refused, match="1000 or more places are not supported") as refused:
        check_keys(body)
    assert len(refused.value.problems) == MOST_PROBLEMS


@pytest.mark.parametrize("count", [MOST, MOST + 1])
def test_so_many_services_and_apps_and_no_more(count: int) -> None:
    one = {"web": app(**{f"s{n}": service() for n in range(count)})}
    many = {f"a{n}": app(s=service()) for n in range(count)}
    for apps in (one, many):
        if count > MOST:
            with pytest.raises(Refused, match=f"at most {MOST}") as refused:
                validate_apps(apps)
            assert refused.value.code == "too_large"
        else:
            validate_apps(apps)


def test_marks_within_strings_are_no_values() -> None:
    content = '[{"a":1},' * 60_000 + '\\"'
    raw = json.dumps({"content": content}).encode()
    assert parse(raw) == {"content": content}


@pytest.mark.parametrize(
    ("tail", "most"),
    [("😀", 3 * MIB), ("\\ud83d\\ude00", 3 * MIB), ("λ", 6 * MIB), ("\\u03bb", 6 * MIB), ("ä", INFLATED)],
)
def test_wide_characters_count_for_what_they_take_in_memory(tail: str, most: int) -> None:
    end = f'{tail}"'.encode()

    def text(size: int) -> bytes:
        return b'"' + b"a" * (size - len(end) - 1) + end

    assert len(text(most)) == most
    assert isinstance(parse(text(most)), str)
    if most < INFLATED:
        with pytest.raises(Refused) as refused:
            parse(text(most + 1))
        assert refused.value.code == "too_large"
