"""The catalogue, accounts and key metadata on a real PostgreSQL, as the application role."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    NoUpstreamKey,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
)
from tollhouse_server.routing import account_store, store
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.catalogue import RouteRequest, TierChoice
from tollhouse_server.routing.catalogue_file import CatalogueFile, packaged_catalogue
from tollhouse_server.routing.live import LiveCatalogue, seed
from tollhouse_server.routing.tables import AccountRow, UpstreamKeyRow
from tollhouse_server.routing.targets import AccountLimit, AccountMetric
from tollhouse_server.upstream.protocol import UpstreamKind

from tests.drivers.postgres import Preparation, TestDatabase

ADDRESSES = Addresses(
    base_urls={"gemini_api": "http://127.0.0.1:1", "vertex": "https://{region}-aiplatform.googleapis.com"},
    egress_urls={"hong-kong": "http://me:word@127.0.0.1:2"},
)
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def account(account_id: str = "acme", base_url_key: str = "gemini_api") -> AccountRow:
    return AccountRow(account_id=account_id, kind="gemini_api", base_url_key=base_url_key)


def key(key_id: str = "first", account_id: str = "acme") -> UpstreamKeyRow:
    fingerprint = account_store.fingerprint_of(f"secret of {key_id}")
    return UpstreamKeyRow(account_id=account_id, key_id=key_id, vault_version=1, fingerprint=fingerprint)


async def with_seed(place: TestDatabase) -> None:
    database = Database(place.app_dsn)
    async with database.transaction() as session:
        await seed(session, accounts=[account()], addresses=ADDRESSES)
    await database.close()


@pytest.fixture
def preparation() -> Preparation:
    return with_seed


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(fresh_database.app_dsn)
    yield database
    await database.close()


async def test_a_seeded_database_routes_every_tier_but_nano(database: Database) -> None:
    """The packaged catalogue serves all tiers with one account; Nano waits for an account of its own kind."""
    live = LiveCatalogue(database, ADDRESSES)

    await live.reload()

    for tier in live.current.list_tiers():
        method = "embedContent" if tier.tier == "embedding" else "generateContent"
        if tier.tier == "nano":
            with pytest.raises(NoUpstreamKey):
                live.current.resolve(RouteRequest(tier=tier.tier, method=method, at=NOW))
        else:
            route = live.current.resolve(RouteRequest(tier=tier.tier, method=method, at=NOW))
            assert [target.model for target in route.targets] == [choice.model for choice in tier.choices]
            assert {target.base_url for target in route.targets} == {"http://127.0.0.1:1"}


async def test_seeding_again_changes_nothing(database: Database) -> None:
    """A start on a seeded database stores no second catalogue and no second price book."""
    async with database.transaction() as session:
        await seed(session, accounts=[account()], addresses=ADDRESSES)

    async with database.transaction() as session:
        revisions = (await session.execute(text("SELECT count(*) FROM catalogue_revision"))).scalar_one()
        versions = (await session.execute(text("SELECT count(*) FROM price_book_version"))).scalar_one()
    assert (revisions, versions) == (1, 1)


async def test_a_newer_packaged_catalogue_keeps_an_edited_tier(database: Database) -> None:
    """What an administrator mapped stays mapped when a newer version of Tollhouse brings its own mapping."""
    async with database.transaction() as session:
        await store.set_tier_choices(session, "ultra", [TierChoice(model="gemini-2.5-pro")])
        await session.execute(text("UPDATE model SET display_name = 'old' WHERE model = 'gemini-2.5-pro'"))

    async with database.transaction() as session:
        await store.store_catalogue(session, newer_catalogue())

    live = LiveCatalogue(database, ADDRESSES)
    await live.reload()
    assert live.current.get_tier("ultra").choices == (TierChoice(model="gemini-2.5-pro"),)
    assert live.current.get_model("gemini-2.5-pro").display_name == "Gemini 2.5 Pro"


def newer_catalogue() -> CatalogueFile:

    return packaged_catalogue().model_copy(update={"revision": 99})


async def test_an_account_cannot_name_a_host_of_its_own(database: Database) -> None:
    """Accounts choose among the settings' addresses; a URL is no choice, at creation or later."""
    async with database.transaction() as session:
        with pytest.raises(InvalidRequest, match=r"account\.endpoint: must be one of: gemini_api"):
            await account_store.create_account(
                session, account("evil", base_url_key="https://evil.example"), addresses=ADDRESSES
            )
        with pytest.raises(InvalidRequest):
            await account_store.update_account(
                session, "acme", {"base_url_key": "https://evil.example"}, addresses=ADDRESSES
            )


async def test_an_account_whose_address_left_the_settings_is_not_routed_to(database: Database) -> None:
    """An address that the settings no longer name is not used, whatever the database says."""
    live = LiveCatalogue(database, Addresses(base_urls={"vertex": "https://vertex.example"}))

    await live.reload()

    assert live.current.accounts() == ()


async def test_an_account_whose_proxy_left_the_settings_is_not_routed_to(database: Database) -> None:
    """A call that must leave through a proxy does not leave without it; the account may be renamed all the same."""
    async with database.transaction() as session:
        await account_store.update_account(session, "acme", {"egress": "hong-kong"}, addresses=ADDRESSES)
    without = Addresses(base_urls=ADDRESSES.base_urls)
    live = LiveCatalogue(database, without)

    await live.reload()

    assert live.current.accounts() == ()
    async with database.transaction() as session:
        await account_store.update_account(session, "acme", {"display_name": "Acme"}, addresses=without)
        with pytest.raises(InvalidRequest, match=r"account\.egress: the settings name no proxy"):
            await account_store.update_account(session, "acme", {"egress": "tokyo"}, addresses=without)


async def test_an_account_is_loaded_with_its_way_its_owner_and_its_limits(database: Database) -> None:
    """What routing and traffic need to know of an account stands in the catalogue."""
    limits = (
        AccountLimit(metric=AccountMetric.REQUESTS_PER_MINUTE, amount=600),
        AccountLimit(metric=AccountMetric.SPEND_PER_10_MINUTES, amount=10**10, model="gemini-3.8-flash"),
    )
    row = AccountRow(
        account_id="near",
        kind="vertex",
        project="acme-prod",
        base_url_key="vertex",
        region="global",
        egress="hong-kong",
        environment="live",
    )
    async with database.transaction() as session:
        await account_store.create_account(session, row, addresses=ADDRESSES, limits=limits)
    live = LiveCatalogue(database, ADDRESSES)

    await live.reload()

    [loaded] = [one for one in live.current.accounts() if one.account_id == "near"]
    assert (loaded.kind, loaded.project, loaded.endpoint) == (UpstreamKind.VERTEX, "acme-prod", "vertex")
    assert (loaded.base_url, loaded.egress_url) == ("https://aiplatform.googleapis.com", "http://me:word@127.0.0.1:2")
    assert (loaded.tenant_id, loaded.environment, loaded.limits) == ("", "live", limits)
    assert "word" not in repr(loaded)


async def test_accounts_and_keys_live_a_whole_life(database: Database) -> None:
    """Create, read, list, change and delete work, and a stale etag or a double id is refused."""
    async with database.transaction() as session:
        created = await account_store.create_account(session, account("beta"), addresses=ADDRESSES)
        await account_store.create_key(session, key(account_id="beta"))
        changed = await account_store.update_account(
            session, "beta", {"display_name": "Beta"}, addresses=ADDRESSES, version=created.version
        )

        assert [row.account_id for row in await account_store.list_accounts(session)] == ["acme", "beta"]
        assert [row.account_id for row in await account_store.list_accounts(session, after="acme", size=1)] == ["beta"]
        assert (changed.display_name, changed.version) == ("Beta", 2)
        assert (await account_store.get_key(session, "beta", "first")).state == "ACTIVE"
        with pytest.raises(EtagMismatch):
            await account_store.update_account(session, "beta", {"project": "x"}, addresses=ADDRESSES, version=1)
        with pytest.raises(InvalidRequest):
            await account_store.update_account(session, "beta", {"kind": "vertex"}, addresses=ADDRESSES)
    async with database.transaction() as session:
        await account_store.delete_key(session, "beta", "first")
        await account_store.delete_account(session, "beta", version=2)
    async with database.transaction() as session:
        with pytest.raises(ResourceNotFound):
            await account_store.get_account(session, "beta")


async def test_ids_are_taken_once(database: Database) -> None:
    """A second account of the same id is refused by name."""
    with pytest.raises(ResourceExists, match="accounts/acme"):
        async with database.transaction() as session:
            await account_store.create_account(session, account(), addresses=ADDRESSES)


async def test_an_account_with_keys_is_not_deleted(database: Database) -> None:
    """Keys are deleted first, so that no secret is left in Vault without an owner."""
    async with database.transaction() as session:
        await account_store.create_key(session, key())

    with pytest.raises(ResourceInUse, match="upstream keys"):
        async with database.transaction() as session:
            await account_store.delete_account(session, "acme")


async def test_a_key_belongs_to_an_account(database: Database) -> None:
    """A key for an account that does not exist is refused."""
    with pytest.raises(ResourceNotFound, match="accounts/nobody"):
        async with database.transaction() as session:
            await account_store.create_key(session, key(account_id="nobody"))


async def test_a_quarantined_key_leaves_the_catalogue_at_the_next_refresh(database: Database) -> None:
    """The epoch tells every process that a key went out of use."""
    live = LiveCatalogue(database, ADDRESSES)
    watch = EpochWatch(database)
    watch.on_change(Topic.ACCOUNTS, live.reload)
    async with database.transaction() as session:
        await account_store.create_key(session, key())
        await account_store.create_key(session, key("second"))
    await watch.refresh()
    assert [one.key_id for one in live.current.keys_of("acme")] == ["first", "second"]

    async with database.transaction() as session:
        await account_store.update_key(session, "acme", "first", {"state": "QUARANTINED"})
    await watch.refresh()

    assert [one.key_id for one in live.current.keys_of("acme")] == ["second"]


async def test_a_disabled_account_takes_no_calls(database: Database) -> None:
    """DISABLED takes an account out of routing."""
    live = LiveCatalogue(database, ADDRESSES)
    async with database.transaction() as session:
        await account_store.update_account(session, "acme", {"state": "DISABLED"}, addresses=ADDRESSES)

    await live.reload()

    with pytest.raises(NoUpstreamKey):
        live.current.resolve(RouteRequest(tier="flash", method="generateContent", at=NOW))
