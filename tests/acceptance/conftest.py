"""The server that acceptance tests share."""

from collections.abc import Iterator

import pytest

from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack, running_stack_in


@pytest.fixture(scope="package")
def running_stack() -> Iterator[RunningStack]:
    """A server that the acceptance tests of one process share; a test that harms it must start its own.

    It serves as one does by default, and has one worker: what a test has seen a change do, the next call sees too.
    Tests of several start their own. It ends with the last acceptance test of the process: one that is idle takes 4% of a core.
    """
    with servers_place("stack") as directory, running_stack_in(directory, workers=1, transport="auto") as stack:
        yield stack
