"""The price book on a real PostgreSQL, as the application role."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import EtagMismatch, ModelUnpriced, PriceFileInvalid, ResourceNotFound
from tollhouse_server.pricing import store
from tollhouse_server.pricing.book import LivePriceBook, packaged_prices, seed_prices
from tollhouse_server.pricing.price_file import ParsedPriceFile, import_prices
from tollhouse_server.pricing.terms import PriceBook

from tests.drivers.postgres import TestDatabase

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def prices_for(model: str, price: str) -> ParsedPriceFile:
    return import_prices(
        f'note = "contract"\n[[prices]]\nmodel = "{model}"\neffective_from = 2026-01-01\nsource = "contract"\n'
        f'input = "{price}"\noutput = "{price}"\n'
    )


@pytest.fixture
async def database(fresh_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(fresh_database.app_dsn)
    yield database
    await database.close()


@pytest.fixture
async def seeded(database: Database) -> Database:
    async with database.transaction() as session:
        await seed_prices(session)
    return database


async def test_what_was_stored_comes_back_whole(seeded: Database) -> None:
    """Every list of the packaged file is read back as it was parsed."""
    async with seeded.transaction() as session:
        book = await store.load(session)
        version = await store.get_version(session, 1)

    assert book.version == 1
    assert book.lists() == PriceBook(1, packaged_prices().lists).lists()
    assert version.price_count == sum(len(one.nanos_per_million) for one in book.lists())
    assert (version.origin, version.digest) == ("PACKAGED", packaged_prices().digest)


async def test_an_import_is_a_new_version_and_leaves_the_old_one_as_it_was(seeded: Database) -> None:
    """History is never repriced: what version 1 said, it says for ever."""
    async with seeded.transaction() as session:
        row = await store.put_in_force(session, prices_for("gemini-3.8-flash", "9"), importer="principals/finance")

    async with seeded.transaction() as session:
        old, new = await store.load(session, 1), await store.load(session)
    assert (row.version, new.version, row.importer) == (2, 2, "principals/finance")
    assert old.terms("gemini-3.8-flash", NOW).nanos("input_text") == 750_000_000
    assert new.terms("gemini-3.8-flash", NOW).nanos("input_text") == 9_000_000_000
    assert new.terms("gemini-2.5-pro", NOW).terms == old.terms("gemini-2.5-pro", NOW).terms


async def test_surcharges_are_kept_version_by_version(seeded: Database) -> None:
    """A file of surcharges leaves all prices as they were, and a file of prices all surcharges."""
    relay = '[[surcharges]]\nendpoint = "gemini_api-relay"\npercent = "7.5"\neffective_from = 2026-11-01\n'
    async with seeded.transaction() as session:
        first = await store.put_in_force(session, import_prices(relay))
        second = await store.put_in_force(session, prices_for("gemini-3.8-flash", "9"))

    async with seeded.transaction() as session:
        before, relayed, after = [await store.load(session, version) for version in (1, 2, 3)]
    assert before.surcharges() == ()
    assert relayed.surcharges() == after.surcharges() != ()
    assert relayed.lists() == before.lists()
    assert after.terms("gemini-3.8-flash", NOW, endpoint="gemini_api-relay").surcharge_per_million == 75_000
    assert [first.price_count, second.price_count] == [
        sum(len(one.nanos_per_million) for one in book.lists()) + 1 for book in (relayed, after)
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE price SET nanos_per_million = 0",
        "DELETE FROM price_book_version",
        "UPDATE price_surcharge SET per_million = 0",
    ],
)
async def test_the_server_itself_cannot_change_history(seeded: Database, statement: str) -> None:
    """The application role may add prices and never change or remove one."""
    with pytest.raises(DBAPIError, match="permission denied"):
        async with seeded.transaction() as session:
            await (await session.connection()).execute(text(statement))


async def test_an_invalid_file_changes_nothing(seeded: Database) -> None:
    """The last good version stays in force."""
    with pytest.raises(PriceFileInvalid):
        async with seeded.transaction() as session:
            await store.put_in_force(session, prices_for("gemini-3.8-flash", "-1"))

    async with seeded.transaction() as session:
        assert await store.current_version(session) == 1


async def test_an_import_made_from_an_older_version_is_refused(seeded: Database) -> None:
    """Two administrators cannot overwrite each other unseen."""
    async with seeded.transaction() as session:
        await store.put_in_force(session, prices_for("gemini-x", "1"), base_version=1)

    with pytest.raises(EtagMismatch):
        async with seeded.transaction() as session:
            await store.put_in_force(session, prices_for("gemini-x", "2"), base_version=1)


async def test_imports_at_the_same_moment_queue(seeded: Database) -> None:
    """Ten concurrent imports make ten versions, and the last holds the prices of all of them."""

    async def one(number: int) -> None:
        async with seeded.transaction() as session:
            await store.put_in_force(session, prices_for(f"gemini-{number}", "1"))

    await asyncio.gather(*(one(number) for number in range(10)))

    async with seeded.transaction() as session:
        book = await store.load(session)
    assert book.version == 11
    assert all(book.terms(f"gemini-{number}", NOW) for number in range(10))


async def test_servers_that_start_at_the_same_moment_seed_once(database: Database) -> None:
    """The first of them stores the packaged file, the others see that it is there."""

    async def one() -> bool:
        async with database.transaction() as session:
            return await seed_prices(session)

    assert sorted(await asyncio.gather(*(one() for _ in range(4)))) == [False, False, False, True]


async def test_a_newer_packaged_file_leaves_imported_models_alone(seeded: Database) -> None:
    """An administrator's contract prices survive an upgrade; other models get the new list prices."""
    async with seeded.transaction() as session:
        await store.put_in_force(session, prices_for("gemini-3.8-flash", "9"))
    newer = import_prices(
        'revision = 2\nnote = "n"\n'
        + "".join(
            f'[[prices]]\nmodel = "{model}"\neffective_from = 2026-01-01\nsource = "s"\ninput = "5"\noutput = "5"\n'
            for model in ("gemini-3.8-flash", "gemini-3.7-flash")
        )
    )

    async with seeded.transaction() as session:
        await store.put_in_force(session, newer, origin=store.Origin.PACKAGED)

    async with seeded.transaction() as session:
        book = await store.load(session)
        assert await store.seeded_revision(session) == 2
    assert book.terms("gemini-3.8-flash", NOW).nanos("input_text") == 9_000_000_000
    assert book.terms("gemini-3.7-flash", NOW).nanos("input_text") == 5_000_000_000


async def test_a_process_prices_with_the_new_book_after_its_next_refresh(seeded: Database) -> None:
    """The epoch tells every process; before the first load nothing has a price."""
    live, watch = LivePriceBook(seeded), EpochWatch(seeded)
    watch.on_change(Topic.PRICES, live.reload)
    with pytest.raises(ModelUnpriced):
        live.current.terms("gemini-3.8-flash", NOW)
    await watch.refresh()
    before = live.current.terms("gemini-3.8-flash", NOW)

    async with seeded.transaction() as session:
        await store.put_in_force(session, prices_for("gemini-3.8-flash", "9"))
    await watch.refresh()

    after = live.current.terms("gemini-3.8-flash", NOW)
    assert (before.version, before.nanos("input_text")) == (1, 750_000_000)
    assert (after.version, after.nanos("input_text")) == (2, 9_000_000_000)


async def test_a_version_that_is_not_there_is_not_found(seeded: Database) -> None:
    """No made-up version."""
    async with seeded.transaction() as session:
        with pytest.raises(ResourceNotFound, match="priceBooks/99"):
            await store.get_version(session, 99)
