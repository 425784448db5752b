"""Tenants' data keys, and the keeping of prompts and answers."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from tollhouse_server.background import Background
from tollhouse_server.content.backlog import Backlog
from tollhouse_server.content.chores import ContentChores
from tollhouse_server.content.keeping import ContentKeeping
from tollhouse_server.content.policies import LiveContentPolicies
from tollhouse_server.content.writing import ContentWriter
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.tenant_keys import TenantKeys
from tollhouse_server.wiring.custody import CustodyParts
from tollhouse_server.wiring.outside import gateway_vault, required_dsn

_KEY_CONNECTIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentParts:
    """What keeps content in a worker."""

    keeping: ContentKeeping
    writer: ContentWriter

    def run_in(self, tasks: Background) -> None:
        """Start writing."""
        tasks.keep(self.writer.run)


def open_tenant_keys(
    settings: Settings, stack: AsyncExitStack, watch: EpochWatch, *, gateway: VaultClient, custodian: VaultClient
) -> TenantKeys:
    """Build the data keys of tenants on connections of their own: who seals may hold one of another pool."""
    database = Database(required_dsn(settings), pool_size=_KEY_CONNECTIONS)
    stack.push_async_callback(database.close)
    return TenantKeys(database, watch, gateway=gateway, custodian=custodian)


async def open_content(database: Database, watch: EpochWatch, keys: TenantKeys, metrics: Metrics) -> ContentParts:
    """Build the keeping of content, with what is to be kept loaded.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached.
    """
    policies, backlog = LiveContentPolicies(database), Backlog()
    watch.on_change(Topic.CONTENT, policies.reload)
    await policies.reload()
    return ContentParts(
        keeping=ContentKeeping(lambda: policies.current, keys, backlog, metrics.contents),
        writer=ContentWriter(database, keys, backlog, metrics.contents),
    )


def open_content_chores(settings: Settings, stack: AsyncExitStack, custody: CustodyParts) -> ContentChores:
    """Build what the housekeeper does for kept content; its connections are closed when the stack unwinds."""
    gateway = gateway_vault(settings)
    stack.push_async_callback(gateway.close)
    database = Database(required_dsn(settings), pool_size=1)
    stack.push_async_callback(database.close)
    keys = open_tenant_keys(settings, stack, custody.watch, gateway=gateway, custodian=custody.vault)
    return ContentChores(database, keys)
