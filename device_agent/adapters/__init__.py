"""The outside world: one file for each library, nothing foreign leaks out."""
