"""What usage would have cost at other prices: whole numbers, each line rounded once."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.imports import book_with
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.price_file import import_prices
from tollhouse_server.pricing.skus import RELAY_SURCHARGE
from tollhouse_server.pricing.terms import PriceBook, Surcharge
from tollhouse_server.pricing.usage import Tokens, Usage
from tollhouse_server.reporting.rerating import Rerating, Target, Used, rerate

BOOK = PriceBook(1, packaged_prices().lists)
BOOKS = {0: PriceBook(0, ()), 1: BOOK}
AT = datetime(2026, 11, 2, tzinfo=UTC)
LATER = datetime(2027, 2, 1, tzinfo=UTC)
LITE, PRO, FLASH = "gemini-2.5-flash-lite", "gemini-2.5-pro", "gemini-3.8-flash"
RELAYED = PriceBook(
    1,
    packaged_prices().lists,
    [Surcharge(endpoint="relay", effective_from=datetime(2025, 1, 1, tzinfo=UTC), per_million=75_000)],
)


def booked(model: str, usage: Usage, tier: str = "standard", book: PriceBook = BOOK, **changes: Any) -> list[Used]:
    """The lines of a call as the ledger has booked them."""
    endpoint = changes.pop("endpoint", "")
    priced = price(book.terms(model, AT, endpoint=endpoint), usage, tier)
    rate = next((line.nanos_per_million for line in priced.lines if line.sku == RELAY_SURCHARGE), 0)
    return [
        Used(
            model=model,
            price_version=changes.get("price_version", 1),
            at=AT,
            sku=line.sku,
            unit=line.unit,
            nanos_per_million=line.nanos_per_million,
            quantity=line.quantity,
            cost_nanos=line.cost_nanos,
            service_tier=usage.service_tier,
            input_tokens=usage.input_tokens,
            surcharge_per_million=rate,
        )
        for line in priced.lines
    ]


def usage_of(**counts: int) -> Usage:
    """A call's usage of text."""
    prompt, cached, output = (counts.get(name, 0) for name in ("prompt", "cached", "output"))
    return Usage(
        prompt=Tokens(text=prompt),
        cached=Tokens(text=cached),
        candidates=Tokens(text=output),
        thoughts_tokens=counts.get("thoughts", 0),
        grounding_queries=counts.get("queries", 0),
    )


def nanos_by_sku(rerating: Rerating) -> dict[str, int]:
    """What each SKU would have cost."""
    return {line.sku: line.rated_nanos for line in rerating.lines}


def test_at_its_own_prices_a_month_costs_what_it_cost() -> None:
    """Long prompts, batch, searches: nothing is lost by grouping."""
    used = [
        *booked(PRO, usage_of(prompt=300_000, cached=1_000, output=50, thoughts=7)),
        *booked(PRO, usage_of(prompt=3_000, output=50, queries=2)),
        *booked(LITE, usage_of(prompt=999, cached=333, output=111), "batch"),
    ]

    rerating = rerate(used, BOOKS, Target(book=BOOK))

    assert rerating.rated_nanos == rerating.booked_nanos == sum(one.cost_nanos for one in used)
    assert rerating.notes == ()


def test_another_service_tier_takes_its_factor_on_tokens_alone() -> None:
    """Batch halves fresh tokens, leaves cached ones of the book and searches as they are."""
    used = booked(LITE, usage_of(prompt=1_000, cached=400, output=100, queries=1))

    rerating = rerate(used, BOOKS, Target(service_tier="batch"))

    assert nanos_by_sku(rerating) == {
        "input_text": 600 * 50,
        "cached_text": 400 * 10,
        "output_text": 100 * 200,
        "grounding_prompt": 35_000_000,
    }
    assert {line.service_tier for line in rerating.lines if line.unit == "token"} == {"batch"}


def test_a_call_that_was_on_batch_is_reckoned_back_to_standard() -> None:
    """Which tier it was on is read from the price at which it was booked: Google's answer need not say."""
    used = booked(LITE, usage_of(prompt=1_000, output=100), "batch")

    rerating = rerate(used, BOOKS, Target(service_tier="standard"))

    assert nanos_by_sku(rerating) == {"input_text": 1_000 * 100, "output_text": 100 * 400}


def test_a_long_prompt_stays_long_at_other_prices() -> None:
    """What was booked at the price of long prompts is reckoned at the new one of long prompts."""
    file = (
        f'[[prices]]\nmodel = "{PRO}"\neffective_from = 2026-01-01\nsource = "s"\ninput = "2"\ninput_long = "7"\n'
        'cached = "0.1"\ncached_long = "0.1"\noutput = "20"\noutput_long = "30"\nlong_above_tokens = 200000\n'
    )
    used = [*booked(PRO, usage_of(prompt=200_001, output=1)), *booked(PRO, usage_of(prompt=200_000, output=1))]

    rerating = rerate(used, BOOKS, Target(book=book_with(BOOK, import_prices(file))))

    lines = {(line.sku, line.booked_nanos_per_million): line.rated_nanos for line in rerating.lines}
    assert lines["input_text", 2_500_000_000] == 200_001 * 7_000
    assert lines["input_text", 1_250_000_000] == 200_000 * 2_000
    assert lines["output_text", 15_000_000_000] == 30_000


def test_prices_of_another_day_can_be_asked_for() -> None:
    """November at the prices of February."""
    used = booked(FLASH, usage_of(prompt=1_000, output=100))

    own, later = [rerate(used, BOOKS, Target(book=BOOK, prices_at=at)) for at in (None, LATER)]

    assert own.rated_nanos == used[0].cost_nanos + used[1].cost_nanos
    assert later.rated_nanos == 2 * own.rated_nanos


def test_what_has_no_price_there_keeps_its_own_and_is_said() -> None:
    """A version from before the model, and a tier that it lacks: nothing becomes free."""
    used = booked(LITE, usage_of(prompt=1_000, output=100))
    embedded = booked("gemini-embedding-001", usage_of(prompt=1_000))

    without = rerate(used, BOOKS, Target(book=BOOKS[0]))
    no_tier = rerate(embedded, BOOKS, Target(service_tier="priority"))

    assert without.rated_nanos == without.booked_nanos
    assert without.notes == (f"{LITE} has no price there; its cost is as it was booked.",)
    assert no_tier.rated_nanos == no_tier.booked_nanos
    assert "gemini-embedding-001 has no prices of the service tier priority" in no_tier.notes[0]


def test_a_surcharge_is_reckoned_on_what_the_calls_would_have_cost() -> None:
    """At its own rate, on the new sum; calls of another way have none."""
    usage = usage_of(prompt=1_000, output=100)
    relayed = booked(LITE, usage, book=RELAYED, endpoint="relay")
    direct = booked(LITE, usage)

    rerating = rerate([*relayed, *direct], {1: RELAYED}, Target(service_tier="batch"))

    half = 1_000 * 50 + 100 * 200
    assert nanos_by_sku(rerating)[RELAY_SURCHARGE] == half * 75_000 // 10**6
    assert rerating.rated_nanos == 2 * half + half * 75_000 // 10**6


@given(
    quantities=st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
    nanos=st.integers(0, 10**12),
)
def test_each_line_is_rounded_once(quantities: list[int], nanos: int) -> None:
    """However many groups it is made of, the line is the exact product to half a nano-dollar, half to even."""
    book = book_with(
        BOOK,
        import_prices(
            f'[[prices]]\nmodel = "m-1"\neffective_from = 2025-01-01\nsource = "s"\n'
            f'input_text = "{nanos // 10**9}.{nanos % 10**9:09d}"\n'
        ),
    )
    used = [
        Used(
            model="m-1",
            price_version=1,
            at=AT,
            sku="input_text",
            unit="token",
            nanos_per_million=5,
            quantity=quantity,
            cost_nanos=0,
        )
        for quantity in quantities
    ]

    (line,) = rerate(used, BOOKS, Target(book=book)).lines

    exact = Fraction(sum(quantities) * nanos, 10**6)
    assert line.rated_nanos == round(exact)
