"""What tells how it is going and what is wrong, as a worker and as the command `doctor` have it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from tollhouse_server.custody.probe import UpstreamProbe, destinations
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.operations.checks.scrape import Scrape
from tollhouse_server.operations.checks.terms import KeyCheck, Result, Surroundings
from tollhouse_server.operations.diagnosis import LONGEST_SECONDS, Diagnosis
from tollhouse_server.operations.keys import HeldKeys, UnheldKeys
from tollhouse_server.routing.addresses import addresses_of
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.live import LiveCatalogue
from tollhouse_server.settings import Settings
from tollhouse_server.upstream.protocol import Upstream
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.key_ring import KeyRing
from tollhouse_server.wiring.outside import custodian_vault, gateway_vault, required_dsn

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
    """Return what checks the server that a worker belongs to."""
    keys = HeldKeys(catalogue, ring, UpstreamProbe(upstream, destinations(catalogue)))
    return _diagnosis(settings, gateway=gateway, custodian=custodian, catalogue=catalogue, keys=keys)


async def diagnose_host(settings: Settings) -> Sequence[Result]:
    """Make the checks from this host, with its settings, whether or not a server runs on it.

    Raises:
        InvalidRequest: the settings do not say where PostgreSQL or Vault is.
    """
    async with AsyncExitStack() as stack:
        database, gateway, custodian = (
            Database(required_dsn(settings), pool_size=1),
            gateway_vault(settings),
            custodian_vault(settings),
        )
        for opened in (database, gateway, custodian):
            stack.push_async_callback(opened.close)
        catalogue = LiveCatalogue(database, addresses_of(settings))
        # Without it there are no accounts to look at; that PostgreSQL is away is told by its own check.
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LONGEST_SECONDS):
                await catalogue.reload()
        diagnosis = _diagnosis(
            settings, gateway=gateway, custodian=custodian, catalogue=lambda: catalogue.current, keys=UnheldKeys()
        )
        return await diagnosis.run()


def _diagnosis(
    settings: Settings,
    *,
    gateway: VaultClient,
    custodian: VaultClient,
    catalogue: Callable[[], Catalogue],
    keys: KeyCheck,
) -> Diagnosis:
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
