"""Limits, counters, attempts, usage records: who may spend, what is held, what was booked. README.md has the words."""
