"""The entry: `run` is started without the command line's libraries, so that the agent stays small and starts fast."""

import gc
import sys


def main() -> int:
    """What the console script `device-agent` calls; its result is the exit code."""
    if sys.argv[1:] == ["run"]:
        # structlog loads rich, where it finds it, to draw tracebacks that an agent has no use for: 4 MiB and 50 ms.
        sys.modules["rich"] = None  # type: ignore[assignment]
        # What is imported stays: to look for garbage in it costs a fifth of the start, and later a little for ever.
        # `run` freezes it, and turns the collector on again.
        gc.disable()
        from device_agent.cli.run import run  # noqa: PLC0415

        return run()
    from device_agent.cli.commands import main as typed  # noqa: PLC0415

    return typed()


if __name__ == "__main__":
    sys.exit(main())
