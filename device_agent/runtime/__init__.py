"""The owner loop and what it drives: takes one event, updates what is wanted, observes, plans, hands out, reports."""
