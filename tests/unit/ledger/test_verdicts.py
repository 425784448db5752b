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
    EVERYTHING,
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
from tests.drivers.ledger_model import LedgerModel, Limit, worth_a_retry

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
    """Whole, made smaller or refused, by which limit, and when to try again: as the plain rules say it."""
    terms, model, shares = situation.terms, situation.model, situation.shares
    refusing = model.refusing(terms, terms.ceiling, shares.of(terms.ceiling))
    granted = model.granted(terms, shares)

    try:
        verdict = decide(terms, situation.limits, situation.counters, shares=shares, at=NOW)
    except LimitExceeded as error:
        assert granted is None
        assert error.limit == _name(refusing[0])
        assert _when(error) == worth_a_retry(refusing[0], terms, shares)
    else:
        assert (verdict.shrunk.ceiling if verdict.shrunk else terms.ceiling) == granted
        assert bool(verdict.shrunk) is bool(refusing)
        if verdict.shrunk:
            assert verdict.clamped_by in map(_name, model.clamping(terms, verdict.shrunk))
        model.admit(terms, granted, shares.of(granted))
    counted = [(counter.held, counter.expected, counter.settled) for counter in situation.counters.values()]
    assert counted == [(limit.held, limit.expected, limit.settled) for limit in model.limits]


def _name(limit: Limit) -> str:
    return f"tenants/acme/limits/{limit.name}"


def _when(error: LimitExceeded) -> str:
    """Return after what the caller is told to try again; no window here ends in the next seconds."""
    if error.retry_after_seconds is None:
        return "NEVER"
    assert error.resets_at is not None
    return "RESET" if error.retry_after_seconds == (error.resets_at - NOW).total_seconds() else "RELEASE"


def strict(
    name: str, metric: Metric, amount: int, *, scope: str = SCOPES[-1], held: int = 0, settled: int = 0
) -> Limit:
    """Build a strict limit that has counted something already, or nothing."""
    limit = Limit(name=name, scope=scope, metric=metric, mode=Mode.STRICT, selector="", amount=amount)
    limit.held, limit.settled = held, settled
    return limit


def in_tick(limit: Limit, number: int = 1) -> tuple[AppliedLimit, Counter]:
    """Return a limit of this month as a tick has it."""
    counter = Counter.found(limit.held, limit.expected, limit.settled, 0)
    return applied(_definition(limit, number), NOW, now=NOW), counter


@pytest.mark.parametrize(
    ("amount", "held", "settled", "when"),
    [(90, 90, 0, "RELEASE"), (90, 60, 30, "RELEASE"), (90, 0, 90, "RESET"), (40, 30, 0, "NEVER")],
)
def test_a_call_that_would_be_made_smaller_is_told_when(amount: int, held: int, settled: int, when: str) -> None:
    """A call that never fits whole is worth another try once a smaller one fits; fifty nano-dollars it always costs."""
    limit = strict("budget", Metric.COST, amount, held=held, settled=settled)
    one, counter = in_tick(limit)
    ceiling = Amounts(requests=1, output_tokens=50, cost_nanos=100)

    with pytest.raises(LimitExceeded) as refused:
        decide(terms(ceiling=ceiling, shrink=_smaller(ceiling)), [one], {one.key: counter}, shares=Shares(), at=NOW)

    assert _when(refused.value) == when


@pytest.mark.parametrize(("money", "tokens", "by"), [(80, 20, "tokens"), (70, 40, "wide-money")])
def test_the_limit_that_decides_the_size_is_named(money: int, tokens: int, by: str) -> None:
    """The narrowest one has no room for the whole call either, but more than another."""
    limits = [
        strict("narrow-money", Metric.COST, 90, scope=SCOPES[0]),
        strict("wide-money", Metric.COST, money),
        strict("tokens", Metric.OUTPUT_TOKENS, tokens),
    ]
    applying = dict(in_tick(limit, number) for number, limit in enumerate(limits))
    ceiling = Amounts(requests=1, output_tokens=50, cost_nanos=100)

    verdict = decide(
        terms(ceiling=ceiling, shrink=_smaller(ceiling)),
        list(applying),
        {one.key: counter for one, counter in applying.items()},
        shares=Shares(),
        at=NOW,
    )

    assert verdict.shrunk is not None
    assert verdict.clamped_by == f"tenants/acme/limits/{by}"


@pytest.mark.parametrize("rooms", [(50, 80), (80, 50)])
def test_a_call_is_made_small_enough_for_every_limit(rooms: tuple[int, int]) -> None:
    """Whichever of two limits has less room."""
    limits = [
        Limit(name=f"limit-{room}", scope=scope, metric=Metric.COST, mode=Mode.STRICT, selector="", amount=room)
        for room, scope in zip(rooms, SCOPES[1:], strict=True)
    ]
    in_tick = [applied(_definition(limit, number), NOW, now=NOW) for number, limit in enumerate(limits)]
    ceiling = Amounts(requests=1, output_tokens=100, cost_nanos=100)
    asked = terms(ceiling=ceiling, shrink=_smaller(ceiling))

    verdict = decide(asked, in_tick, {one.key: Counter() for one in in_tick}, shares=EVERYTHING, at=NOW)

    assert verdict.shrunk == Shrunk(ceiling._replace(output_tokens=50, cost_nanos=50), 50)


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
