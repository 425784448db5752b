"""What is told of PostgreSQL, as one housekeeper sees it."""

from tollhouse_server.telemetry.declarations.declaration import Declaration, reading

CONNECTIONS = reading(
    "tollhouse_database_connections",
    "Connections to the database by state (active, idle, idle_in_transaction, other), whoever's they are.",
    "state",
)
CONNECTIONS_LIMIT = reading(
    "tollhouse_database_connections_limit", "How many connections the PostgreSQL server takes in all."
)
SIZE = reading("tollhouse_database_size_bytes", "Size of the database on disk.")
READINGS_TAKEN = reading(
    "tollhouse_readings_timestamp_seconds",
    "When one housekeeper last read budgets, departments and the database for these metrics, since 1970.",
)

DECLARATIONS: tuple[Declaration, ...] = (CONNECTIONS, CONNECTIONS_LIMIT, SIZE, READINGS_TAKEN)
