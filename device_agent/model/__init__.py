"""Frozen data: what arrives, what is observed, what is to be done, what is told. No behaviour beyond parsing."""
