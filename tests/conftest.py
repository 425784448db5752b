"""Fixtures that every test may use."""

from hypothesis import settings

pytest_plugins = [
    "tests.drivers.postgres",
    "tests.drivers.openbao",
    "tests.drivers.stack",
    "tests.drivers.command_line",
    "tests.drivers.books",
    "tests.drivers.bill_finance",
]


def pytest_configure() -> None:
    """Let properties take their time: how long an example takes is the machine's affair, which others use too."""
    settings.register_profile("tollhouse", deadline=None)
    settings.load_profile("tollhouse")
