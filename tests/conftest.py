"""Fixtures that every test may use."""

pytest_plugins = [
    "tests.drivers.postgres",
    "tests.drivers.openbao",
    "tests.drivers.stack",
    "tests.drivers.command_line",
    "tests.drivers.books",
]
