"""The cases of overload: fair shares, priorities, goodput, callers who hang up, two workers, learned capacity."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

from tollhouse.v1 import generation_pb2 as g

from tests.drivers.referee import Finding
from tests.faults.overload import Case, Trial, served_since
from tests.faults.overload_figures import Figures
from tests.faults.overload_load import Call, Load, Source
from tests.faults.overload_rig import (
    HEAVY,
    LOUD,
    LOUD_ABROAD,
    MEAN_SECONDS,
    MODEL,
    PARTS,
    QUIET,
    WEIGHT_OF_HEAVY,
    WORKERS,
)
from tests.faults.report import say

PLACES = 16
CAPACITY = PLACES / MEAN_SECONDS
"""Calls a second of an account with so many places."""

QUIET_RATE = 4.0
TIMES_LOUDER = 50
FEW_PLACES = 8
FEW = FEW_PLACES / MEAN_SECONDS
A_MINUTE = 1200
_LEAST_OF_PEAK = 0.9
_MOST_OF_QUIET_P99 = 2.0
_SHARES_SECONDS = 150.0
_CLASSES = (g.PRIORITY_CRITICAL, g.PRIORITY_DEFAULT, g.PRIORITY_BATCH, g.PRIORITY_SHEDDABLE)


def _class(figures: dict[str, Figures], priority: "g.Priority.ValueType", department: str = LOUD) -> Figures:
    return figures[Source(department=department, rate=1, priority=priority).name]


async def _fair_share(trial: Trial) -> None:
    """A quiet department alone, beside one of fifty times its load, and beside one of another tenant."""
    quiet = Source(department=QUIET, rate=QUIET_RATE)
    alone = (await trial.phase("alone", quiet))[quiet.name]
    for name, department in (("beside a loud department", LOUD), ("beside a loud tenant", LOUD_ABROAD)):
        loud = Source(department=department, rate=QUIET_RATE * TIMES_LOUDER)
        beside = (await trial.phase(name, quiet, loud))[quiet.name]
        ratio = beside.at(0.99) / alone.at(0.99)
        trial.expect(f"{name}: p99 at most twice that alone", holds=ratio <= _MOST_OF_QUIET_P99, detail=round(ratio, 2))
        trial.expect(f"{name}: all of the quiet served", holds=beside.share > 0.99, detail=round(beside.share, 4))


async def _weights(trial: Trial) -> None:
    """Three departments that each ask for more than there is: one of weight 3, one of none, a part of the first."""
    sources = [Source(department=one, rate=FEW * 1.5) for one in (HEAVY, LOUD, PARTS)]
    figures = await trial.phase("three backlogged departments", *sources)
    heavy, loud, parts = (figures[one.name].rate for one in sources)
    for name, rate in (("heavy", heavy), ("a part of heavy", parts)):
        ratio = rate / loud
        is_so = abs(ratio - WEIGHT_OF_HEAVY) <= 0.15 * WEIGHT_OF_HEAVY
        trial.expect(f"{name} gets three times as much", holds=is_so, detail=round(ratio, 2))


async def _priorities(trial: Trial) -> None:
    """All four classes at once, each with as much as can be served, but the critical calls, which are few."""
    critical = Source(department=LOUD, rate=FEW / 5, priority=g.PRIORITY_CRITICAL)
    alone = (await trial.phase("critical alone", critical))[critical.name]
    others = [Source(department=LOUD, rate=FEW * 0.7, priority=priority) for priority in _CLASSES[1:]]
    figures = await trial.phase("all classes", critical, *others)
    first, default, batch, sheddable = (_class(figures, priority) for priority in _CLASSES)
    trial.expect("all critical calls are served", holds=first.share > 0.99, detail=round(first.share, 4))
    ratio = first.at(0.99) / alone.at(0.99)
    trial.expect("critical calls wait for a place at the most", holds=ratio <= 2.0, detail=round(ratio, 2))
    shares = [round(one.share, 3) for one in (first, default, batch, sheddable)]
    in_order = all(above >= below for above, below in pairwise(shares))
    trial.expect("the more important the class, the more of it is served", holds=in_order, detail=shares)
    trial.expect("default calls are hardly touched", holds=default.share > 0.9, detail=round(default.share, 3))


async def _starvation(trial: Trial) -> None:
    """More default calls than can be served, and batch calls below them: those do not starve."""
    default = Source(department=LOUD, rate=FEW * 3)
    batch = Source(department=LOUD, rate=FEW / 2, priority=g.PRIORITY_BATCH, deadline_seconds=20)
    sheddable = Source(department=LOUD, rate=FEW / 2, priority=g.PRIORITY_SHEDDABLE)
    figures = await trial.phase("default calls for three times what there is", default, batch, sheddable)
    total = sum(one.rate for one in figures.values())
    part = figures[batch.name].rate / total
    trial.expect("batch calls get a part of what there is", holds=part >= 0.02, detail=round(part, 3))
    shed = figures[sheddable.name]
    told = [call for call in shed.refused if call.reason == "OVERLOADED"]
    at_once = sum((call.seconds or 0.0) < 1.0 for call in told) / max(1, len(shed.refused))
    trial.expect("sheddable calls are told at once", holds=at_once > 0.8, detail=round(at_once, 3))


async def _goodput(trial: Trial) -> None:
    """One to ten times what can be served: what is served stays what it was at the peak."""
    await _goodput_at(trial, FEW)


async def _goodput_at(trial: Trial, capacity: float) -> None:
    rates = {}
    before = await trial.phase("half the load", Source(department=QUIET, rate=capacity / 2))
    for times in (1, 2, 5, 10):
        source = Source(department=LOUD, rate=capacity * times)
        rates[times] = (await trial.phase(f"{times} times the load", source))[source.name].rate
        if times != 10:
            await trial.emptied(within_seconds=20)
    peak = max(rates.values())
    for times, rate in rates.items():
        if times > 1:
            part = rate / peak
            trial.expect(
                f"goodput at {times} times the load", holds=part >= _LEAST_OF_PEAK, detail=f"{part:.3f} of {peak:.1f}/s"
            )
    ended_at = time.monotonic()
    after = await trial.phase("half the load afterwards", Source(department=QUIET, rate=capacity / 2))
    (once,), (now,) = before.values(), after.values()
    soon = served_since(now.calls, ended_at + 3)
    slowest = sorted(call.seconds or 0.0 for call in soon)
    ratio = slowest[int(len(slowest) * 0.99)] / once.at(0.99)
    trial.expect("three seconds later all is as before", holds=ratio <= 2.0, detail=round(ratio, 2))


async def _retry(trial: Trial) -> None:
    """Whoever is refused comes back when he was told: if the load has ended he is served without a wait."""
    coming = asyncio.create_task(trial.load.run(Source(department=LOUD, rate=FEW * 5), seconds=10))
    await asyncio.sleep(9.5)
    refused = await trial.load.one(Source(department=LOUD, rate=1, deadline_seconds=4))
    trial.expect("a newcomer is refused", holds=refused.reason == "OVERLOADED", detail=refused.reason)
    await asyncio.sleep(refused.retry_seconds or 0.0)
    served = await trial.load.one(Source(department=LOUD, rate=1))
    trial.expect(
        "who comes back as told is served soon",
        holds=not served.code and (served.seconds or 9) < 1.0,
        detail=f"told {refused.retry_seconds} s, then {served.code} {served.seconds} s",
    )
    await coming


async def _hang_ups(trial: Trial) -> None:
    """Callers who wait for half a second and go, ten times as many as there is room for."""
    attempts = "SELECT count(*) FROM usage_record"
    before, log_before = await trial.rig.root.fetchval(attempts), await trial.rig.simulator.count_calls()
    source = Source(department=LOUD, rate=FEW * 10, hangs_up_after_seconds=0.5, deadline_seconds=20)
    figures = (await trial.phase("callers who hang up", source))[source.name]
    await trial.emptied(within_seconds=3)
    await asyncio.sleep(1)
    booked = await trial.rig.root.fetchval(attempts) - before
    sent = await trial.rig.simulator.count_calls() - log_before
    gone = sum(call.code == "HUNG_UP" for call in figures.calls)
    trial.measured["hung up, booked, sent"] = [gone, booked, sent]
    # One who goes while his call is upstream has caused an attempt; of those there are as many as places allow.
    most = 1.1 * FEW * trial.size.seconds
    trial.expect("who hangs up in the queue leaves no attempt", holds=booked == sent <= most, detail=(booked, sent))
    trial.expect("places go to those who wait", holds=sent >= 0.9 * FEW * trial.size.seconds, detail=sent)
    served = await trial.load.one(Source(department=QUIET, rate=1))
    trial.expect(
        "the next caller is served", holds=not served.code and (served.seconds or 9) < 1, detail=served.seconds
    )


async def _two_workers(trial: Trial) -> None:
    """Two departments, each on a worker of its own, that share an account's requests per minute."""
    by_worker = await asyncio.to_thread(trial.load.connections_by_worker)
    trial.expect("the connections reach both workers", holds=len(by_worker) == WORKERS, detail=by_worker)
    first, second = (tuple(one) for one in by_worker.values())
    rate = A_MINUTE / 60 * 1.5
    sources = (
        Source(department=QUIET, rate=rate, connections=first),
        Source(department=LOUD, rate=rate, connections=second),
    )
    await trial.phase("one of them alone", sources[0], seconds=max(70.0, trial.size.seconds))
    began_at = time.monotonic()
    await trial.phase("both", *sources, seconds=max(_SHARES_SECONDS, trial.size.seconds))
    calls = [call for call in trial.load.calls if call.began_at >= began_at]
    _judge_shares(trial, [one.name for one in sources], served_since(calls, began_at + 60))
    await _judge_quota(trial)


def _judge_shares(trial: Trial, names: Sequence[str], served: Sequence[Call]) -> None:
    counts = [sum(call.source.name == name for call in served) for name in names]
    part = min(counts) / max(1, *counts)
    trial.expect("after a minute both have fair shares", holds=part >= 0.8, detail=counts)


async def _judge_quota(trial: Trial) -> None:
    sent = "SELECT outcome, count(*) FROM usage_record WHERE account_id = $1 GROUP BY outcome"
    account = f"case-{trial.rig.accounts}"
    outcomes = {row["outcome"]: row["count"] for row in await trial.rig.root.fetch(sent, account)}
    refused = sum(count for outcome, count in outcomes.items() if "429" in outcome)
    total = sum(outcomes.values())
    trial.expect("the upstream refuses hardly any", holds=refused <= 0.01 * total, detail=outcomes)


async def _learned_capacity(trial: Trial) -> None:
    """An upstream that takes so many calls at a time and says 503 to others."""
    await trial.rig.simulator.set_capacity(concurrent_calls=FEW_PLACES)
    try:
        await _goodput_at(trial, FEW)
        refused = (await trial.rig.simulator.capacity())[0]["refused"]
        served = sum(not call.code for call in trial.load.calls)
        part = refused / served
        trial.expect("few calls find out what the upstream takes", holds=part <= 0.1, detail=round(part, 4))
    finally:
        await trial.rig.simulator.clear_capacity()


async def _learned_fairness(trial: Trial) -> None:
    """The same, with a quiet department beside a loud one."""
    await trial.rig.simulator.set_capacity(concurrent_calls=PLACES)
    try:
        await _fair_share(trial)
    finally:
        await trial.rig.simulator.clear_capacity()


async def _learned_quota(trial: Trial) -> None:
    """A quota of requests per minute that nobody has configured, learned from 429s that name it."""
    project = f"case-{trial.rig.accounts}"
    await trial.rig.simulator.set_quota(project, requests_per_minute=A_MINUTE)
    source = Source(department=LOUD, rate=A_MINUTE / 60 * 3)
    await trial.phase("three times the quota", source, seconds=_SHARES_SECONDS)
    last = trial.load.calls[-1].began_at
    served = served_since(trial.load.calls, last - 60)
    part = len(served) / A_MINUTE
    trial.expect("the quota is used", holds=part >= _LEAST_OF_PEAK, detail=round(part, 3))
    await _judge_quota(trial)


async def _processor(trial: Trial) -> None:
    """No limit upstream but the machine's own: callers who each call again as soon as they were answered."""
    await trial.rig.simulator.set_pace(MODEL, latency_ms=20, tokens_per_second=0)
    try:
        rates = {}
        for callers in (8, 16, 32, 80, 160):
            rates[callers] = await _closed_loop(trial, callers, seconds=trial.size.seconds / 3)
    finally:
        await trial.rig.set_pace()
    peak = max(rates.values())
    part = min(rates[80], rates[160]) / peak
    trial.expect("goodput at ten times the callers", holds=part >= _LEAST_OF_PEAK, detail=(round(part, 3), rates))


async def _closed_loop(trial: Trial, callers: int, *, seconds: float) -> float:
    load: Load = trial.load
    source = Source(department=LOUD, rate=1, deadline_seconds=20)
    ends_at, calls = time.monotonic() + seconds, []

    async def go_on_calling() -> None:
        while time.monotonic() < ends_at:
            calls.append(await load.one(source))

    before = trial.rig.cpu_seconds()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(go_on_calling())
    after = trial.rig.cpu_seconds()
    figures = Figures(calls, seconds)
    cpu = {one: round((after[one] - before[one]) / seconds, 2) for one in after}
    trial.measured[f"{callers} callers"] = {**figures.shown(), "cores": cpu}
    say(f"      {callers} callers: {figures.shown()} cores {cpu}")
    if figures.share < 0.999:
        trial.findings.append(Finding("calls failed for want of processor time", f"{callers} callers"))
    return round(figures.rate, 1)


CASES = (
    Case(name="fair share of places", befall=_fair_share, limits={"concurrent_calls": PLACES}),
    Case(name="fair share of a learned capacity", befall=_learned_fairness),
    Case(
        name="fair share of the worker's own places",
        befall=_fair_share,
        settings=frozenset({("TOLLHOUSE_MAX_CALLS_UPSTREAM", str(PLACES // WORKERS))}),
    ),
    Case(name="weights", befall=_weights, limits={"concurrent_calls": FEW_PLACES}),
    Case(name="priorities", befall=_priorities, limits={"concurrent_calls": FEW_PLACES}),
    Case(name="starvation", befall=_starvation, limits={"concurrent_calls": FEW_PLACES}),
    Case(name="goodput of places", befall=_goodput, limits={"concurrent_calls": FEW_PLACES}),
    Case(name="goodput of a learned capacity", befall=_learned_capacity),
    Case(name="goodput of a learned quota", befall=_learned_quota),
    Case(name="retry as told", befall=_retry, limits={"concurrent_calls": FEW_PLACES}),
    Case(name="hang-ups in the queue", befall=_hang_ups, limits={"concurrent_calls": FEW_PLACES}),
    Case(name="two workers", befall=_two_workers, limits={"requests_per_minute": A_MINUTE}),
    Case(name="processor", befall=_processor),
)
