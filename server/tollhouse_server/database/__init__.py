"""The way to PostgreSQL: engine, transactions, epochs, migrations. SQL itself lives in each room's `store.py`."""
