"""`python -m cloud_sim` and the console script `cloud-sim`."""

from cloud_sim.cli.commands import app


def main() -> None:
    """Run the command line; the exit codes are in its help."""
    app(prog_name="cloud-sim")


if __name__ == "__main__":
    main()
