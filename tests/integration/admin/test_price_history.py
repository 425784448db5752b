"""What the price of something was at one moment, as it was known at another."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import prices_pb2 as pb
from tollhouse_server.errors import InvalidRequest, PricesImplausible, ResourceNotFound

from tests.integration.admin.plane import Plane
from tests.integration.admin.prices import MODEL, file_of, importing, input_cents


def moment(text: str) -> Timestamp:
    """A day, or a moment."""
    found = Timestamp()
    found.FromDatetime(datetime.fromisoformat(text).replace(tzinfo=UTC))
    return found


async def import_time(plane: Plane, version: int) -> Timestamp:
    """When a version was imported."""
    book: pb.PriceBook = await plane.call(pb.GetPriceBookRequest(name=f"priceBooks/{version}"))
    return book.import_time


async def three_versions(plane: Plane) -> None:
    """In 2026 $2; then $3 from July on; then, corrected, $4 from July on."""
    await plane.call(importing(file_of("2")))
    await plane.call(importing(file_of("3", since="2026-07-01")))
    await plane.call(importing(file_of("4", since="2026-07-01")))


async def test_a_price_has_two_times(plane: Plane) -> None:
    """From when it holds, and from when the book said so; both are asked for apart."""
    await three_versions(plane)
    known = [await import_time(plane, version) for version in (1, 2, 3)]
    before = Timestamp()
    before.FromDatetime(known[0].ToDatetime() - timedelta(seconds=1))

    said = {
        day: [await input_cents(plane, effective_at=moment(day), known_at=at) for at in (before, *known)]
        for day in ("2026-06-30", "2026-07-01")
    }

    assert said == {"2026-06-30": [[], [200], [200], [200]], "2026-07-01": [[], [200], [300], [400]]}
    assert await input_cents(plane, version=2) == [200, 300]
    assert await input_cents(plane) == [200, 400]


async def test_the_history_of_a_model_has_every_price_with_both_times(plane: Plane) -> None:
    """What was corrected is there with the time in which it was believed; what other imports left alone, once."""
    await three_versions(plane)
    await plane.call(importing(file_of("9", model="gemini-y")))

    answer = await plane.call(pb.ListPriceHistoryRequest(model=MODEL, sku="input_text"))

    times = {version: await import_time(plane, version) for version in (1, 2, 3)}
    assert [
        (one.price.amount.units, one.version, one.known_time, one.until_version, one.known_until_time)
        for one in answer.episodes
    ] == [
        (2, 1, times[1], 0, Timestamp()),
        (3, 2, times[2], 3, times[3]),
        (4, 3, times[3], 0, Timestamp()),
    ]


async def test_the_history_comes_in_pages(plane: Plane) -> None:
    """Pages put together are the whole."""
    await three_versions(plane)
    whole = (await plane.call(pb.ListPriceHistoryRequest(model=MODEL, page_size=1000))).episodes
    request = pb.ListPriceHistoryRequest(model=MODEL, page_size=4)
    paged: list[pb.PriceEpisode] = []
    while True:
        page = await plane.call(request)
        paged += page.episodes
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break

    assert paged == list(whole)
    assert len(paged) == 3 * 7


async def test_versions_and_what_each_changed_can_be_listed(plane: Plane) -> None:
    """The newest first; a version against the one before it, or against any."""
    await three_versions(plane)

    books = (await plane.call(pb.ListPriceBooksRequest(page_size=2))).price_books
    last = (await plane.call(pb.ListPriceChangesRequest(parent="priceBooks/current"))).changes
    both = (await plane.call(pb.ListPriceChangesRequest(parent="priceBooks/3", base_version=1, page_size=3))).changes

    assert [book.version for book in books] == [3, 2]
    assert {(one.before.amount.units, one.after.amount.units) for one in last} == {(3, 4)}
    assert len(both) == 3
    assert {(one.HasField("before"), one.after.amount.units) for one in both} == {(False, 4)}
    with pytest.raises(ResourceNotFound):
        await plane.call(pb.ListPriceChangesRequest(parent="priceBooks/9"))


async def test_a_moment_and_a_version_do_not_go_together(plane: Plane) -> None:
    """Both say which book is meant."""
    with pytest.raises(InvalidRequest, match="known_at"):
        await plane.call(pb.ListPricesRequest(version=1, known_at=moment("2026-07-01")))


async def test_an_import_that_cannot_be_meant_changes_nothing(plane: Plane) -> None:
    """The field is named; with a reason it is taken."""
    await plane.call(importing(file_of("2", more='cache_storage = "1"\n')))

    with pytest.raises(PricesImplausible, match=r"prices\[0\]\.input_text: is 1/20 of"):
        await plane.call(importing(file_of("0.1", more='cache_storage = "1"\n')))
    with pytest.raises(PricesImplausible, match=r"prices\[0\]\.cache_storage: .* would have none"):
        await plane.call(importing(file_of("3")))
    allowed = pb.PriceAllowances(allow_jumps=True, reason="promised by Google until March")
    taken = await plane.call(importing(file_of("0.1", more='cache_storage = "1"\n'), allowances=allowed))

    assert taken.price_book.version == 2


async def test_a_change_of_a_service_tier_is_shown(plane: Plane) -> None:
    """The factor of batch alone has changed: the diff has the prices of batch, before and after."""
    await plane.call(importing(file_of("2", more='service_tiers = { batch = "0.5" }\n')))

    answer = await plane.call(importing(file_of("2", more='service_tiers = { batch = "0.25" }\n')))

    (change,) = [one for one in answer.changes if one.after.sku == "thoughts"]
    assert (change.before.service_tier, change.after.service_tier) == ("batch", "batch")
    assert (change.before.amount.units, change.after.amount.nanos) == (1, 500_000_000)
    assert answer.unchanged_count == 0


async def test_a_draft_is_made_from_genai_prices_and_imported(plane: Plane) -> None:
    """For a model that the book lacks: a whole list, at the source's prices, with what it could not say beside it."""
    draft = await plane.call(
        pb.GetPriceDraftRequest(source=pb.PRICE_SOURCE_GENAI_PRICES, models=["gemini-3.5-flash", "no-such-model"])
    )

    imported = await plane.call(importing(draft.content, base_version=draft.base_version))

    prices = {one.after.sku: one.after.amount for one in imported.changes}
    assert (prices["input_text"].units, prices["input_text"].nanos) == (1, 500_000_000)
    assert draft.source_version.startswith("genai-prices ")
    assert [(note.model, note.kind) for note in draft.notes] == [("no-such-model", pb.PriceDraftNote.KIND_ABSENT)]
