"""Reconciliation: what Google bills beside what the ledger booked, line by line."""
