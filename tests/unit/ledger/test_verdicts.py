"""The arithmetic of verdicts against the plain model, and the amounts that temporary increases make."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import LimitExceeded
from tollhouse_server.ledger.terms import (
    WHOLE,
    Amounts,
    Calendar,
    CallTerms,
    CounterKey,
    Increase,
    LimitDefinition,
    Metric,
    Mode,
    Shares,
    Shrunk,
    Window,
)
from tollhouse_server.ledger.verdicts import AppliedLimit, Counter, applied, decide

from tests.drivers.ledger import terms
from tests.drivers.ledger_model import LedgerModel, Limit

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
COUNTED = [metric for metric in Metric if metric is not Metric.CONCURRENCY]
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
    ceiling = Amounts(*draw(st.tuples(*[st.integers(1, 80)] * 5)))
    shrink = _smaller(ceiling) if draw(st.booleans()) else None
    shares = Shares(*draw(st.tuples(*[st.integers(0, WHOLE)] * 5)))
    limits.sort(key=lambda limit: SCOPES.index(limit.scope))
    in_tick = [applied(_definition(limit, number), NOW, now=NOW) for number, limit in enumerate(limits)]
    counters = {
        one.key: Counter.found(limit.held, limit.expected, limit.settled, 0)
        for one, limit in zip(in_tick, limits, strict=True)
    }
    return Situation(terms(ceiling=ceiling, shrink=shrink), shares, LedgerModel(limits=limits), in_tick, counters)


def _definition(limit: Limit, number: int) -> LimitDefinition:
    return LimitDefinition(
        tenant_id="acme",
        scope=limit.scope,
        limit_id=number,
        name=limit.name,
        metric=limit.metric,
        window=Window.MONTH,
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
