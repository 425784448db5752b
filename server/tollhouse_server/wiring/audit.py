"""The audit trail, as a worker and as the housekeeper have it."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.audit_service import AuditService
from tollhouse_server.api.witness import Witness
from tollhouse_server.audit.anchor import Anchor
from tollhouse_server.audit.chores import AuditChores, Cadence
from tollhouse_server.audit.personal import PersonalData
from tollhouse_server.audit.refusals import RefusalLog
from tollhouse_server.background import Background
from tollhouse_server.database.engine import Database
from tollhouse_server.identity.networks import parse_network
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.paths import AUDIT_KEY
from tollhouse_server.vault.signing import Purpose, SigningKey
from tollhouse_server.vault.tenant_keys import TenantKeys
from tollhouse_server.wiring.outside import gateway_vault, required_dsn

_ANCHOR = "audit-anchor"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditParts:
    """What keeps and reads the trail in a worker."""

    database: Database
    refusals: RefusalLog
    witness: Witness
    key: SigningKey
    anchor: Anchor

    def run_in(self, tasks: Background) -> None:
        """Start writing what is refused."""
        tasks.keep(self.refusals.run)

    def service(self, pages: PageTokens) -> AuditService:
        """Return the service that reads trails."""
        return AuditService(self.database, pages, witness=self.witness, key=self.key, anchor=self.anchor)


def open_audit(
    settings: Settings, database: Database, *, gateway: VaultClient, keys: TenantKeys, metrics: Metrics
) -> AuditParts:
    """Build what a worker needs."""
    personal = PersonalData(keys)
    refusals = RefusalLog(database, metrics, personal)
    proxies = [parse_network(network) for network in settings.trusted_proxies]
    return AuditParts(
        database=database,
        refusals=refusals,
        witness=Witness(personal, refusals, proxies),
        key=SigningKey(gateway, AUDIT_KEY, purpose=Purpose.AUDIT),
        anchor=Anchor(_anchor_directory(settings)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditChoreParts:
    """What the housekeeper does for the trail."""

    chores: AuditChores
    vault: VaultClient

    def run_in(self, tasks: Background) -> None:
        """Start signing, anchoring and dropping."""
        tasks.keep(self.vault.run)
        tasks.keep(self.chores.run)


def open_audit_chores(settings: Settings, stack: AsyncExitStack, metrics: Metrics) -> AuditChoreParts:
    """Build what the housekeeper needs; its connections are closed when the stack unwinds."""
    vault = gateway_vault(settings)
    stack.push_async_callback(vault.close)
    database = Database(required_dsn(settings), pool_size=1)
    stack.push_async_callback(database.close)
    chores = AuditChores(
        database,
        key=SigningKey(vault, AUDIT_KEY, purpose=Purpose.AUDIT),
        anchor=Anchor(_anchor_directory(settings)),
        cadence=Cadence(events=settings.audit_checkpoint_events, seconds=settings.audit_checkpoint_seconds),
        months=settings.audit_retention_months,
        metrics=metrics,
    )
    return AuditChoreParts(chores=chores, vault=vault)


def _anchor_directory(settings: Settings) -> Path:
    return settings.audit_anchor_dir or settings.state_dir / _ANCHOR
