"""Limits and routes that are not in force, replayed over calls that were made."""

import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server.chargeback.rerouting import PastUsage, Rerouting, Route, usage_of
from tollhouse_server.chargeback.simulation import PastCall, Replay
from tollhouse_server.ledger.terms import Amounts, Calendar, CallTerms, LimitDefinition, Metric, Mode, Scope, Window
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.terms import PriceBook

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
BERLIN = Calendar(zone=ZoneInfo("Europe/Berlin"))
ACME = "tenants/acme"


def limit(metric: Metric, window: Window, amount: int, **changes: Any) -> LimitDefinition:
    """Build a strict limit on the tenant."""
    plain = LimitDefinition(
        tenant_id="acme",
        scope=ACME,
        limit_id=1,
        name="proposed",
        metric=metric,
        window=window,
        selector="",
        mode=Mode.STRICT,
        amount=amount,
        overshoot=0,
        increases=(),
        calendar=BERLIN,
    )
    return replace(plain, **changes)


def call(
    after: timedelta, nanos: int, *, seconds: float = 0, held: int = 0, path: tuple[str, ...] = ("sales",)
) -> PastCall:
    """Build a call that was sent so long after noon, ran so long, and cost so much of what it held."""
    scope = Scope(
        tenant_id="acme",
        department_path=path,
        project_id="crm",
        credential_id="k",
        credential_name="",
        principal_id="",
    )
    used = Amounts(requests=1, input_tokens=10, output_tokens=20, cost_nanos=nanos)
    terms = CallTerms(
        *(UUID(int=1), UUID(int=1), b"", True, scope, "generateContent", "flash", "gemini-3.5-flash", "main", {}, 1),
        ceiling=used._replace(cost_nanos=max(nanos, held)),
    )
    at = NOON + after
    return PastCall(terms=terms, used=used, dispatched_at=at, settled_at=at + timedelta(seconds=seconds))


def refused(calls: list[PastCall], *limits: LimitDefinition) -> int:
    """Return how many of the calls the limits would have refused."""
    replay = Replay(limits)
    replay.play(calls)
    return replay.refused_calls


@pytest.mark.parametrize("seed", range(5))
def test_daily_budgets_refuse_what_a_plain_loop_refuses(seed: int) -> None:
    """Calls one after the other, days of Berlin: the same calls and the same money, whatever the pieces are."""
    chance = random.Random(seed)
    moments = sorted(chance.uniform(0, 10 * 86_400) for _ in range(400))
    calls = [call(timedelta(seconds=at), chance.randrange(1, 100)) for at in moments]
    budget = limit(Metric.COST, Window.DAY, 1500)
    spent: dict[str, int] = defaultdict(int)
    saved = 0

    replay = Replay([budget])
    for start in range(0, len(calls), 37):
        replay.play(calls[start : start + 37])

    for one in calls:
        day = str(one.dispatched_at.astimezone(BERLIN.zone).date())
        if spent[day] + one.used.cost_nanos > 1500:
            saved += one.used.cost_nanos
        else:
            spent[day] += one.used.cost_nanos
    assert saved > 0
    assert (replay.refused_nanos, replay.booked_nanos) == (saved, sum(one.used.cost_nanos for one in calls))
    assert replay.outcomes[1].peak == max(spent.values())


def test_a_call_holds_its_ceiling_until_it_was_booked() -> None:
    """What is in flight counts at its worst; what was booked, at what it came to."""
    budget = limit(Metric.COST, Window.MONTH, 100)
    second = timedelta(seconds=1)
    together = [call(0 * second, 10, held=60, seconds=5), call(second, 10, held=60, seconds=5)]
    apart = [call(0 * second, 10, held=60, seconds=5), call(6 * second, 10, held=60, seconds=5)]

    assert (refused(together, budget), refused(apart, budget)) == (1, 0)


@pytest.mark.parametrize(
    ("one", "refusals"),
    [
        (limit(Metric.CONCURRENCY, Window.TOTAL, 2), 1),
        (limit(Metric.REQUESTS, Window.MINUTE, 2), 1),
        (limit(Metric.REQUESTS, Window.MINUTE, 2, mode=Mode.SOFT), 0),
        (limit(Metric.REQUESTS, Window.ROLLING_10_MINUTES, 3), 1),
        (limit(Metric.OUTPUT_TOKENS, Window.TOTAL, 60), 1),
        (limit(Metric.REQUESTS, Window.TOTAL, 0, selector="tiers/pro"), 0),
        (limit(Metric.REQUESTS, Window.TOTAL, 0, selector="models/gemini-3.5-flash"), 4),
        (limit(Metric.REQUESTS, Window.TOTAL, 0, scope=f"{ACME}/departments/emea"), 1),
        (limit(Metric.REQUESTS, Window.TOTAL, 0, scope=f"{ACME}/departments/sales"), 4),
        (limit(Metric.REQUESTS, Window.TOTAL, 0, scope=f"{ACME}/departments/emea/projects/crm"), 1),
        (limit(Metric.COST, Window.TOTAL, 39, mode=Mode.ELASTIC, overshoot=400), 1),
    ],
)
def test_limits_mean_here_what_they_mean_in_the_ledger(one: LimitDefinition, refusals: int) -> None:
    """Metrics, windows, modes, selectors and scopes: three calls at once, a fourth five minutes later from below."""
    calls = [call(timedelta(seconds=at), 10, held=100, seconds=30) for at in (1, 2, 3)]
    calls.append(call(timedelta(minutes=5), 10, held=100, path=("sales", "emea")))

    assert refused(calls, one) == refusals


def test_the_memory_of_a_replay_is_that_of_open_windows() -> None:
    """A month of minutes leaves a handful of counters."""
    replay = Replay(
        [limit(Metric.REQUESTS, Window.MINUTE, 1), limit(Metric.COST, Window.ROLLING_10_MINUTES, 9**9, limit_id=2)]
    )

    replay.play(call(timedelta(minutes=number), 1) for number in range(20_000))

    assert replay.refused_calls == 0
    assert len(replay._counters) < 50


def test_corrections_stay_as_they_were_booked() -> None:
    """They are no calls, and no limit is asked."""
    correction = call(timedelta(0), -5)._replace(is_correction=True)
    replay = Replay([limit(Metric.REQUESTS, Window.TOTAL, 0)])

    replay.play([correction])

    assert (replay.records, replay.calls, replay.booked_nanos, replay.refused_calls) == (1, 0, -5, 0)


def test_calls_on_another_model_cost_what_that_model_costs_for_the_same_usage() -> None:
    """The first route that fits is taken; what has no usage, or no price there, stays as it was."""
    book = PriceBook(1, packaged_prices().lists)
    document = {"prompt": {"text": 1000}, "candidates": {"text": 500}, "thoughts_tokens": 7}
    other = price(book.terms("gemini-2.5-flash-lite", NOON), usage_of(document)).cost_nanos
    routes = [
        Route(source="models/gemini-3.5-flash", model="gemini-2.5-flash-lite"),
        Route(source="tiers/pro", model="x"),
    ]
    rerouting = Rerouting(routes, book)

    rerouting.play(
        [
            PastUsage("pro", "gemini-3.5-flash", NOON, 10_000_000, document),
            PastUsage("pro", "gemini-3.1-pro", NOON, 77, document),
            PastUsage("flash", "gemini-3.5-flash", NOON, 5, {}),
            PastUsage("lite", "gemini-2.0", NOON, 3, document),
        ]
    )

    first, second = rerouting.outcomes
    assert 0 < other < 10_000_000
    assert (first.calls, first.booked_nanos, first.simulated_nanos) == (2, 10_000_005, other + 5)
    assert (first.unpriced_calls, second.unpriced_calls, second.simulated_nanos) == (1, 1, 77)
    assert (rerouting.booked_nanos, rerouting.simulated_nanos) == (10_000_085, other + 5 + 77 + 3)
