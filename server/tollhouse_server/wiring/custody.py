"""The custody of upstream keys, as the housekeeper has it."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from tollhouse_server.background import Background
from tollhouse_server.custody.chores import Custody
from tollhouse_server.custody.key_use import UnusualUse
from tollhouse_server.custody.probe import UpstreamProbe, destinations
from tollhouse_server.custody.providers.google import ApiKeysAddress, ApiKeysProvider
from tollhouse_server.custody.providers.manual import ManualProvider
from tollhouse_server.custody.providers.protocol import KeyProvider
from tollhouse_server.custody.rotations import Rotations
from tollhouse_server.custody.terms import ProviderKind
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.routing.addresses import addresses_of
from tollhouse_server.routing.live import LiveCatalogue
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.upstream.tokens import AccessTokens
from tollhouse_server.upstream.upstreams import open_upstreams
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.wiring.outside import custodian_vault, required_dsn

_DATABASE_CONNECTIONS = 4
"""A rotation keeps one while it waits for the provider, and three go on at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyParts:
    """What rotates keys."""

    custody: Custody
    watch: EpochWatch
    vault: VaultClient

    def run_in(self, tasks: Background) -> None:
        """Start rotations, warnings and the sweep of stray keys."""
        for run in (self.watch.run, self.vault.run, self.custody.run):
            tasks.keep(run)


async def open_custody(settings: Settings, stack: AsyncExitStack, metrics: Metrics) -> CustodyParts:
    """Build the custody of keys; its connections are closed when the stack unwinds.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached.
    """
    database = Database(required_dsn(settings), pool_size=_DATABASE_CONNECTIONS)
    stack.push_async_callback(database.close)
    vault = custodian_vault(settings)
    stack.push_async_callback(vault.close)
    upstreams = await stack.enter_async_context(open_upstreams(token_urls=settings.upstream_token_urls))
    catalogue, watch = LiveCatalogue(database, addresses_of(settings)), EpochWatch(database)
    watch.on_change(Topic.CATALOGUE, catalogue.reload)
    watch.on_change(Topic.ACCOUNTS, catalogue.reload)
    await watch.refresh()
    providers = _providers(settings, vault, upstreams.tokens)
    probe = UpstreamProbe(upstreams, destinations(lambda: catalogue.current))
    rotations = Rotations(
        database, vault, providers, probe, note_promoted=lambda account: metrics.key_promoted(account=account)
    )
    custody = Custody(database, rotations, UnusualUse(database, metrics), metrics, providers)
    return CustodyParts(custody=custody, watch=watch, vault=vault)


def _providers(settings: Settings, vault: VaultClient, tokens: AccessTokens) -> dict[ProviderKind, KeyProvider]:
    """Return who issues keys; the simulator only where one runs."""
    providers: dict[ProviderKind, KeyProvider] = {
        ProviderKind.MANUAL: ManualProvider(vault),
        ProviderKind.GOOGLE: ApiKeysProvider(vault, tokens, ApiKeysAddress(endpoint=settings.api_keys_url)),
    }
    if settings.simulator_url is not None:
        address = ApiKeysAddress(endpoint=settings.simulator_url, token="simulator", provider="SIMULATOR")  # noqa: S106
        providers[ProviderKind.SIMULATOR] = ApiKeysProvider(vault, tokens, address)
    return providers
