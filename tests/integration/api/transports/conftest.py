"""Servers for the conformance suite: each transport in a process of its own, as it is run."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.drivers.transport_server import Running, running
from tests.drivers.transports import TRANSPORTS

LIMIT_BYTES = 4 * 1024 * 1024
METADATA_BYTES = 4096


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def server(transport: str) -> Iterator[Running]:
    """A server that all tests share."""
    limits: dict[str, Any] = {"max_message_bytes": LIMIT_BYTES, "max_metadata_bytes": METADATA_BYTES}
    with running(transport, reflection=True, **limits) as [one]:
        yield one
