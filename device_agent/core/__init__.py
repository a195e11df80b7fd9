"""Decisions: pure and total. No clock, log, randomness or I/O; the time is an argument."""
