"""On-device use: devices, the receipts that they sign, and what it would have cost elsewhere."""
