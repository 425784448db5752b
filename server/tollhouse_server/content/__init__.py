"""Prompts and answers that a tenant wants kept: sealed, for a time, and for those alone who may read them."""
