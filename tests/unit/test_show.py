"""The status for people."""

import io

from rich.console import Console

from device_agent.cli.show import show_status
from tests.builders import app, service
from tests.device import settled


def test_piped_it_is_a_line_for_each_thing_however_long_and_word_for_word():
    device = settled({"web": app(api=service())}, release="r" * 90)
    told = device.ask("status")["result"]
    told["store"]["status"] = "the database was set aside as x.corrupt: [Errno 5] " + "long " * 30
    out = io.StringIO()
    show_status(told, Console(file=out, width=80))
    head, api = out.getvalue().splitlines()
    assert told["store"]["status"].strip() in head
    assert api.startswith("web/api  running")
    assert "r" * 90 in api
