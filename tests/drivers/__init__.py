"""Starts the real servers that tests use."""
