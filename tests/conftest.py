"""Fixtures that every test may use."""

import gc
from collections.abc import Generator

import pytest
from hypothesis import settings
from xdist.remote import Producer

from tests.drivers.units import SharedServers

pytest_plugins = [
    "tests.drivers.postgres",
    "tests.drivers.openbao",
    "tests.drivers.stack",
    "tests.drivers.forks",
    "tests.drivers.command_line",
    "tests.drivers.books",
    "tests.drivers.bill_finance",
]


def pytest_configure() -> None:
    """Let properties take their time: how long an example takes is the machine's affair, which others use too."""
    settings.register_profile("tollhouse", deadline=None)
    settings.load_profile("tollhouse")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedServers | None:
    """Give modules that share a server to one process."""
    return SharedServers(config, log) if config.option.dist == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, and never look at what was collected: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
