"""One real, unsealed OpenBao per test session (per xdist worker), with the mounts and roles of a deployment."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from tollhouse_server.embedded.openbao import EmbeddedOpenBao, OpenBaoConfig, OpenBaoEndpoint

from tests.drivers.postgres import complete


@dataclass(frozen=True, slots=True)
class TestOpenBao:
    """A running server. A test that seals or stops it brings it back before it ends."""

    __test__ = False

    server: EmbeddedOpenBao
    endpoint: OpenBaoEndpoint


@pytest.fixture(scope="session")
def openbao(server_directory: Path) -> Iterator[TestOpenBao]:
    """A running OpenBao on a free loopback port; log in with `endpoint.gateway` or `endpoint.key_custodian`."""
    directory = server_directory / f"openbao-{uuid4().hex[:8]}"
    server = EmbeddedOpenBao(OpenBaoConfig(directory=directory, log_path=server_directory / f"{directory.name}.log"))
    endpoint = complete(server.start())
    try:
        yield TestOpenBao(server, endpoint)
    finally:
        complete(server.stop())
