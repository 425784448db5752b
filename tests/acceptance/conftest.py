"""The servers that acceptance tests share (tests/drivers/units.py has which module shares which)."""

from collections.abc import Iterator

import pytest

from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack, running_stack_in


@pytest.fixture(scope="package")
def running_stack() -> Iterator[RunningStack]:
    """A server that most acceptance tests share; a test that harms it must start its own.

    It serves as one does by default, and has one worker: what a test has seen a change do, the next call sees too.
    Tests of several take `two_workers`. It ends with the last acceptance test of the process: one that is idle takes 4%
    of a core.
    """
    with servers_place("stack") as directory, running_stack_in(directory, workers=1, transport="auto") as stack:
        yield stack


@pytest.fixture(scope="package")
def two_workers() -> Iterator[RunningStack]:
    """A server of two workers, shared like `running_stack`."""
    with servers_place("stack") as directory, running_stack_in(directory, workers=2) as stack:
        yield stack
