"""The entry: `run` is started without the command line's libraries, so that the agent stays small and starts fast."""

import gc
import sys
import warnings


def main() -> int:
    """What the console script `device-agent` calls; its result is the exit code."""
    if sys.argv[1:] == ["run"]:
        leave_out()
        # What is imported stays: to look for garbage in it costs a fifth of the start, and later a little for ever.
        # `run` freezes it, and turns the collector on again.
        gc.disable()
        from device_agent.cli.run import run  # noqa: PLC0415

        return run()
    from device_agent.cli.commands import main as typed  # noqa: PLC0415

    return typed()


def leave_out() -> None:
    """Keep libraries from loading others that they can do without, and this process has no use for."""
    # structlog loads rich, where it finds it, to draw tracebacks: 4 MiB and 50 ms.
    sys.modules["rich"] = None  # type: ignore[assignment]
    # requests loads charset_normalizer to guess the encoding of text that does not tell it; without, it takes UTF-8,
    # which is what an engine sends. 3 MiB. It warns that it cannot guess.
    sys.modules["charset_normalizer"] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", message="Unable to find acceptable character detection dependency")


if __name__ == "__main__":
    sys.exit(main())
