"""What tells how it is going and what is wrong, as a worker and as the command `doctor` have it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tollhouse_server.custody.probe import UpstreamProbe, destinations
from tollhouse_server.database.engine import Database
from tollhouse_server.operations.checks.scrape import Scrape
from tollhouse_server.operations.checks.terms import Surroundings
from tollhouse_server.operations.diagnosis import Diagnosis
from tollhouse_server.operations.keys import HeldKeys
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.settings import Settings
from tollhouse_server.upstream.protocol import Upstream
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.key_ring import KeyRing
from tollhouse_server.wiring.outside import required_dsn

_CONNECTIONS = 2
"""A diagnosis brings connections of its own: it must not take from calls what they wait for."""


def diagnosis_of(
    settings: Settings,
    *,
    gateway: VaultClient,
    custodian: VaultClient,
    catalogue: Callable[[], Catalogue],
    ring: KeyRing,
    upstream: Upstream,
) -> Diagnosis:
    """Return what checks this server."""
    keys = HeldKeys(catalogue, ring, UpstreamProbe(upstream, destinations(catalogue)))

    @asynccontextmanager
    async def surroundings(probes: bool) -> AsyncIterator[Surroundings]:  # noqa: FBT001 - as `Open` has it
        database = Database(required_dsn(settings), pool_size=_CONNECTIONS)
        try:
            yield Surroundings(
                settings=settings,
                database=database,
                gateway=gateway,
                custodian=custodian,
                catalogue=catalogue,
                keys=keys,
                scrape=Scrape(settings.bind_address, settings.metrics_port),
                probes=probes,
            )
        finally:
            await database.close()

    return Diagnosis(surroundings)
