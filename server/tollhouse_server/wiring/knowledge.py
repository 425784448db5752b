"""What a worker keeps in memory."""

from dataclasses import dataclass

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.department_moves import DueMoves
from tollhouse_server.chargeback.label_bounds import LabelBounds
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.dlp.live import LiveDataPolicies
from tollhouse_server.dlp.policy import DigestKey
from tollhouse_server.identity.directory import Directory
from tollhouse_server.pricing.book import LivePriceBook
from tollhouse_server.routing.addresses import addresses_of
from tollhouse_server.routing.live import LiveCatalogue
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.tenancy.project_paths import ProjectPaths
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.key_ring import KeyRing, UpstreamKeyRef
from tollhouse_server.wiring.identity import IdentityParts, open_identity
from tollhouse_server.wiring.outside import data_policy_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What a worker keeps in memory and the epochs keep current."""

    watch: EpochWatch
    identity: IdentityParts
    catalogue: LiveCatalogue
    prices: LivePriceBook
    data_policies: LiveDataPolicies
    directory: Directory
    authorizer: Authorizer
    project_paths: ProjectPaths
    labels: LiveBoundLabels
    label_bounds: LabelBounds
    keys: KeyRing


async def open_knowledge(
    settings: Settings, database: Database, vault: VaultClient, pepper: bytes, metrics: Metrics
) -> Knowledge:
    """Load what a worker must know before it serves.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached.
    """
    watch = EpochWatch(database)
    watch.before_reading(DueMoves(database).carry_out)
    catalogue, prices, keys = LiveCatalogue(database, addresses_of(settings)), LivePriceBook(database), KeyRing(vault)

    async def expect_keys() -> None:
        # Never waits: a Vault that hangs must not make what this process knows of revocations grow old.
        found = [
            UpstreamKeyRef(account_id=key.account_id, key_id=key.key_id, version=key.vault_version)
            for account in catalogue.current.accounts()
            for key in catalogue.current.keys_of(account.account_id)
        ]
        keys.expect_soon(found)

    watch.on_change(Topic.CATALOGUE, catalogue.reload)
    watch.on_change(Topic.ACCOUNTS, catalogue.reload)
    watch.on_change(Topic.ACCOUNTS, expect_keys)
    watch.on_change(Topic.PRICES, prices.reload)
    data_policies = LiveDataPolicies(database, DigestKey(data_policy_key(pepper)))
    watch.on_change(Topic.DATA_POLICIES, data_policies.reload)
    labels = LiveBoundLabels(database)
    watch.on_change(Topic.LABELS, labels.reload)
    identity = open_identity(settings, database, watch, pepper)
    knowledge = Knowledge(
        watch=watch,
        identity=identity,
        catalogue=catalogue,
        prices=prices,
        data_policies=data_policies,
        directory=identity.directory,
        authorizer=Authorizer(database, watch),
        project_paths=ProjectPaths(database, watch),
        labels=labels,
        label_bounds=LabelBounds(database, metrics, most_values=settings.most_label_values),
        keys=keys,
    )
    await watch.refresh()
    await keys.refresh()
    return knowledge
