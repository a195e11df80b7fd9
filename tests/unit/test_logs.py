"""The log as people read it: where a traceback says what went wrong, it does not say what was in the variables."""

import pytest
import structlog

from device_agent.cli.logs import configure_logs


@pytest.fixture
def configured():
    before = structlog.get_config()
    yield configure_logs
    structlog.configure(**before)


def test_a_traceback_shows_no_variables(configured, capsys):
    configured("info", "console")
    document = "hush" + "hush"  # not in the source line that is shown
    try:
        int(document[:0])
    except ValueError:
        structlog.get_logger("test").exception("it_failed")
    shown = capsys.readouterr().err
    assert "it_failed" in shown
    assert "ValueError: invalid literal" in shown
    assert "hushhush" not in shown
