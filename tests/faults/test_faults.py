"""The faults that are quick, each once. `make faults` has all of them, as often as one likes."""

import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.host import DEFAULT_URL, Host
from tests.faults.groups import FAULTS
from tests.faults.run import Wish, carry_out

if TYPE_CHECKING:
    from tests.faults.fault import Fault

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.broker]


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    host = Host(os.environ.get("DOCKER_HOST") or DEFAULT_URL, f"faults-{secrets.token_hex(3)}")
    yield host
    host.close()


@pytest.mark.timeout(600)
def test_a_device_must_come_right_after_every_quick_fault(host: Host) -> None:
    def told(_: object) -> None:
        """pytest tells in the end."""

    quick: list[Fault] = [fault for fault in FAULTS.values() if fault.fast and fault.may_be_tried]
    outcomes = carry_out(Wish(host, runs=1, seed=secrets.token_hex(4)), quick, 4, told)
    assert {each.fault.name: each.broken for each in outcomes if each.broken} == {}
    assert all(each.runs == 1 for each in outcomes)
