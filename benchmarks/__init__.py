"""What the agent costs, measured beside its peers in the same run. `make bench`; programs, never timed tests."""
