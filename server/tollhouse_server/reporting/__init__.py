"""What was used and what it cost, read from the ledger's records alone."""
