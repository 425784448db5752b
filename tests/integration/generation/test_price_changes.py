"""Google changes prices at midnight in California: a second before and after it, through reserve and settle."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server.pricing.imports import book_with
from tollhouse_server.pricing.price_file import import_prices
from tollhouse_server.pricing.terms import PriceBook

from tests.drivers.generation import GenerationProcess, call_of

CALIFORNIA = ZoneInfo("America/Los_Angeles")
SECOND = timedelta(seconds=1)
CHANGES = {
    "gemini-4-argon": (datetime(2026, 12, 1, tzinfo=CALIFORNIA), (2_000, 10_000), (4_000, 20_000)),
    "gemini-3.8-flash": (datetime(2027, 1, 1, tzinfo=CALIFORNIA), (750, 3_750), (1_500, 7_500)),
    "gemini-3.7-flash": (datetime(2027, 1, 1, tzinfo=CALIFORNIA), (750, 3_750), (1_500, 7_500)),
    "gemini-3.6-flash": (datetime(2027, 1, 1, tzinfo=CALIFORNIA), (750, 3_750), (1_500, 7_500)),
}
"""When, and nano-dollars for a token in and out before and after, as published."""


def raised(book: PriceBook, model: str) -> PriceBook:
    """Import three times the price of a model, from the beginning on."""
    return book_with(
        book,
        import_prices(
            f'[[prices]]\nmodel = "{model}"\neffective_from = 2025-01-01\nsource = "a test"\n'
            'input = "6"\ncached = "0.3"\noutput = "30"\n'
        ),
    )


@pytest.mark.parametrize("model", CHANGES)
async def test_a_call_gets_the_price_of_its_moment(process: GenerationProcess, model: str) -> None:
    """Held at its ceiling and booked at its usage, both at the prices of the day that it is in California."""
    midnight, before, after = CHANGES[model]
    moments = {midnight - SECOND: before, midnight: after, midnight + SECOND: after}

    answers = []
    for process.stated_time in moments:
        answers.append(await process.generate(call_of("[[tokens:40]]", model=model)))

    records = {record.attempt_id: record for record in await process.records()}
    for answer, (input_nanos, output_nanos) in zip(answers, moments.values(), strict=True):
        record, usage = records[answer.outcome.attempt_id], answer.body["usageMetadata"]
        output_tokens = usage["candidatesTokenCount"] + usage.get("thoughtsTokenCount", 0)
        assert usage["promptTokenCount"] > 0
        assert record.cost_nanos == usage["promptTokenCount"] * input_nanos + output_tokens * output_nanos
        assert record.ceiling_nanos > record.cost_nanos
    held = [records[answer.outcome.attempt_id].ceiling_nanos for answer in answers]
    assert held[1] == held[2] == 2 * held[0]
    await process.assert_nothing_in_flight()


async def test_history_does_not_move_when_prices_are_imported(process: GenerationProcess) -> None:
    """What was booked stays to the nano-dollar, with its version; only calls from then on have the new price."""
    model = "gemini-3.8-flash"
    await process.generate(call_of("[[tokens:40]]", model=model))
    (before,) = await _booked(process)

    process.price_book = raised(process.price_book, model)
    await process.generate(call_of("[[tokens:40]]", model=model))

    first, second = await _booked(process)
    assert first == before
    assert [row[1] for row in (first, second)] == [1, 2]
    assert second[2] > 2 * first[2]


async def _booked(process: GenerationProcess) -> list[tuple[object, int, int, str]]:
    rows = await process.view.connection.fetch(
        "SELECT attempt_id, price_version, cost_nanos, lines::text FROM usage_record ORDER BY settled_at, attempt_id"
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
