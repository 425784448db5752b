"""Chargeback: from list price to charge, shared costs, statements, and the close of a month."""
