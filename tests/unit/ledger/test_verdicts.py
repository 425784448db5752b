"""The arithmetic of verdicts against the plain model, and the amounts that temporary increases make."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse_server.errors import LimitExceeded
from tollhouse_server.ledger.terms import (
    WHOLE,
    Amounts,
    Calendar,
    CallTerms,
    CounterKey,
    Hold,
    Increase,
    LimitDefinition,
    Metric,
    Mode,
    Shares,
    Shrunk,
    Window,
)
from tollhouse_server.ledger.verdicts import AppliedLimit, Counter, applied, decide, top_up

from tests.drivers.ledger import terms
from tests.drivers.ledger_model import LedgerModel, Limit

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
# Two of them are what a call can be made smaller in.
COUNTED = [Metric.COST] * 3 + [Metric.OUTPUT_TOKENS] * 2 + [Metric.REQUESTS, Metric.INPUT_TOKENS, Metric.IMAGES]
SCOPES = ("tenants/acme/departments/vision/projects/labels", "tenants/acme/departments/research", "tenants/acme")
SMALL = st.integers(0, 60)


@dataclass(frozen=True, slots=True)
class Situation:
    """A call, and limits that have counted something already, as the model has them and as a tick has them."""

    terms: CallTerms
    shares: Shares
    model: LedgerModel
    limits: list[AppliedLimit]
    counters: dict[CounterKey, Counter]


@st.composite
def model_limits(draw: st.DrawFn, number: int) -> Limit:
    mode, held = draw(st.sampled_from(Mode)), draw(SMALL)
    return Limit(
        name=f"limit-{number}",
        scope=SCOPES[number % len(SCOPES)],
        metric=draw(st.sampled_from(COUNTED)),
        mode=mode,
        selector="",
        amount=draw(st.integers(0, 200)),
        # A limit of another mode may have one from the time when it was elastic.
        overshoot=draw(SMALL),
        held=held,
        expected=draw(st.integers(0, held)) if mode is Mode.ELASTIC else 0,
        settled=draw(SMALL),
    )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    limits = [draw(model_limits(number)) for number in range(draw(st.integers(0, 5)))]
    few, many = st.integers(1, 20), st.integers(20, 150)
    ceiling = Amounts(*draw(st.tuples(few, few, many, few, many)))
    shrink = _smaller(ceiling) if draw(st.booleans()) else None
    shares = Shares(*draw(st.tuples(*[st.integers(0, WHOLE)] * 5)))
    limits.sort(key=lambda limit: SCOPES.index(limit.scope))
    windows = st.sampled_from([Window.MONTH, Window.ROLLING_10_MINUTES])
    definitions = [_definition(limit, number, draw(windows)) for number, limit in enumerate(limits)]
    in_tick = [applied(definition, NOW, now=NOW) for definition in definitions]
    counters = {
        one.key: Counter.found(limit.held, limit.expected, limit.settled, 0)
        for one, limit in zip(in_tick, limits, strict=True)
    }
    return Situation(terms(ceiling=ceiling, shrink=shrink), shares, LedgerModel(limits=limits), in_tick, counters)


def _definition(limit: Limit, number: int, window: Window = Window.MONTH) -> LimitDefinition:
    return LimitDefinition(
        tenant_id="acme",
        scope=limit.scope,
        limit_id=number,
        name=limit.name,
        metric=limit.metric,
        window=window,
        selector=limit.selector,
        mode=limit.mode,
        amount=limit.amount,
        overshoot=limit.overshoot,
        increases=(),
        calendar=Calendar(ZoneInfo("UTC")),
    )


def _smaller(ceiling: Amounts) -> Any:
    """A token of output costs a nano-dollar here; what is not output costs the rest."""
    fixed_nanos = max(0, ceiling.cost_nanos - ceiling.output_tokens)

    def shrink(cost_nanos: int | None, output_tokens: int | None) -> Shrunk | None:
        rooms = (
            ceiling.output_tokens,
            ceiling.output_tokens if output_tokens is None else output_tokens,
            ceiling.output_tokens if cost_nanos is None else cost_nanos - fixed_nanos,
        )
        tokens = min(rooms)
        if tokens < 1:
            return None
        return Shrunk(ceiling._replace(output_tokens=tokens, cost_nanos=fixed_nanos + tokens), tokens)

    return shrink


@settings(max_examples=600, deadline=None)
@given(situation=situations())
def test_a_verdict_is_the_models(situation: Situation) -> None:
    """Whole, made smaller or refused, and by which limit: as the plain rules say it."""
    terms, model, shares = situation.terms, situation.model, situation.shares
    refusing = model.refusing(terms, terms.ceiling, shares.of(terms.ceiling))
    smaller = terms.shrink(*model.rooms(terms)) if refusing and terms.shrink else None
    fits_smaller = smaller is not None and not model.refusing(terms, smaller.ceiling, shares.of(smaller.ceiling))

    try:
        verdict = decide(terms, situation.limits, situation.counters, shares=shares, at=NOW)
    except LimitExceeded as error:
        assert not fits_smaller
        assert error.limit == f"tenants/acme/limits/{refusing[0].name}"
        granted = None
    else:
        assert verdict.shrunk == (smaller if refusing else None)
        assert fits_smaller or not refusing
        granted = verdict.shrunk.ceiling if verdict.shrunk else terms.ceiling
        model.admit(terms, granted, shares.of(granted))
    counted = [(counter.held, counter.expected, counter.settled) for counter in situation.counters.values()]
    assert counted == [(limit.held, limit.expected, limit.settled) for limit in model.limits]


def test_more_for_a_call_in_flight_is_not_another_call() -> None:
    """Where as many calls run as may run at once, one of them may still hold more."""
    limit = Limit(
        name="at-once", scope="tenants/acme", metric=Metric.CONCURRENCY, mode=Mode.STRICT, selector="", amount=1
    )
    one = applied(_definition(limit, 1, Window.TOTAL), NOW, now=NOW)
    counters = {one.key: Counter.found(1, 0, 0, 0)}
    holds = (Hold(one.key, Metric.CONCURRENCY, 1),)

    grown = top_up(holds, Amounts(output_tokens=5), limits=[one], counters=counters, at=NOW)

    assert grown == holds
    assert counters[one.key].held == 1


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("starts_at", "expires_at", "amount"),
    [
        (None, NOW + HOUR, 150),
        (NOW, NOW + HOUR, 150),
        (NOW + HOUR, NOW + 2 * HOUR, 100),
        (NOW - HOUR, NOW, 100),
        (None, NOW - HOUR, 100),
    ],
)
def test_an_increase_counts_from_its_beginning_to_its_end(
    starts_at: datetime | None, expires_at: datetime, amount: int
) -> None:
    """Its beginning is part of it, its end is not."""
    limit = Limit(name="budget", scope="tenants/acme", metric=Metric.COST, mode=Mode.STRICT, selector="", amount=100)

    increased = replace(_definition(limit, 1), increases=(Increase(starts_at, expires_at, 50),))

    assert increased.amount_at(NOW) == amount
