"""The upstream matrix: a part of the upstream fails under load, and every call that can still be served is.

Each case: calls at a rate in good health, then the trouble for a minute, then without it until every breaker is closed
again. Afterwards the books are compared with the simulator's log, attempt by attempt, as in every campaign.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.drivers.referee import Finding
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.upstream_figures import (
    LOST_SHARE,
    RETRY_SHARE,
    Attempt,
    Watch,
    attempts_since,
    figures,
    judge_calls,
    keys_of,
    lost,
    watching,
)
from tests.faults.upstream_load import Call, Load, load_on
from tests.faults.upstream_rig import UpstreamRig
from tests.faults.upstream_troubles import TROUBLES, Trouble

CAMPAIGN = "upstream"
HEALTHY, FAULT, AFTERWARDS = "healthy", "fault", "afterwards"
_HEALTHY_SECONDS = 10.0
_AFTERWARDS_SECONDS = 5.0
_LATEST_CALM_SECONDS = 150.0
_SHOWN_LOST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a case is: calls a second, and for how long something fails."""

    rate: float = 100.0
    seconds: float = 60.0
    healthy_seconds: float = _HEALTHY_SECONDS


async def run(
    rig: UpstreamRig, journal: Journal, *, seed: int, size: Size, only: Sequence[str] = (), again: bool = False
) -> None:
    """Run every case that has not passed yet."""
    for trouble in TROUBLES:
        case = f"upstream: {trouble.name}"
        if not all(word in trouble.name for word in only) or (journal.has_passed(case) and not again):
            continue
        await rig.start_anew()
        findings, measured = await befall(rig, trouble, seed=seed, size=size)
        journal.add(CAMPAIGN, case, findings, seed=seed, rate=size.rate, **measured)
        say(f"  {trouble.name}: {measured['brief']}")
        for finding in dict.fromkeys(findings):
            say(f"      {finding} x {findings.count(finding)}")


async def befall(rig: UpstreamRig, trouble: Trouble, *, seed: int, size: Size) -> tuple[list[Finding], dict[str, Any]]:
    """Let a trouble befall the upstream under load; return what is wrong, and what was measured."""
    since = await rig.root.fetchval("SELECT clock_timestamp()")
    started_at = time.monotonic()
    async with watching(rig) as watch:
        async with load_on(rig, trouble.kind, rate=size.rate, seed=seed) as load:
            load.phase, load.may_run_out = HEALTHY, trouble.stops_midway
            await asyncio.sleep(size.healthy_seconds)
            load.phase, struck_at = FAULT, time.monotonic()
            await _last(rig, trouble, struck_at + size.seconds)
            findings = await watch.shown_otherwise("in trouble")
            await trouble.mend(rig)
            load.phase, mended_at = AFTERWARDS, time.monotonic()
            await _calm(watch, mended_at)
        findings += await watch.shown_otherwise("afterwards") + await watch.differences()
    findings += await rig.verdict() + watch.judge(
        keys_of(trouble.opens), keys_of(trouble.may_open), struck_at=struck_at, mended_at=mended_at
    )
    attempts = await attempts_since(rig, since)
    measured = {phase: figures(load, phase, attempts) for phase in (HEALTHY, FAULT, AFTERWARDS)}
    findings += judge_calls(load.calls, attempts) + _shares(load, measured[FAULT])
    return findings, {
        **measured,
        "breakers": _breakers(watch, struck_at, mended_at),
        "brief": _brief(measured[FAULT], load, _breakers(watch, struck_at, mended_at)),
        "lost": _examples(lost(load.calls), attempts),
        "calls": len(load.calls),
        "seconds": round(time.monotonic() - started_at, 1),
    }


async def _last(rig: UpstreamRig, trouble: Trouble, until: float) -> None:
    """Let a trouble strike, and last."""
    await trouble.strike(rig)
    while (seconds := until - time.monotonic()) > 0:
        await asyncio.sleep(min(seconds, trouble.again_seconds or seconds))
        if trouble.again_seconds is not None:
            await trouble.strike(rig)


async def _calm(watch: Watch, mended_at: float) -> None:
    """Let calls go on until every breaker is closed again."""
    await asyncio.sleep(_AFTERWARDS_SECONDS)
    while not watch.is_calm and time.monotonic() < mended_at + _LATEST_CALM_SECONDS:
        await watch.look()
        await asyncio.sleep(0.5)


def _shares(load: Load, measured: dict[str, Any]) -> list[Finding]:
    findings = []
    for phase in (HEALTHY, FAULT, AFTERWARDS):
        calls = load.of(phase)
        missing = lost(calls)
        if len(missing) > LOST_SHARE * len(calls):
            findings.append(Finding("calls were lost that could be served", phase, f"{len(missing)} of {len(calls)}"))
    if measured["retry_percent"] > 100 * RETRY_SHARE:
        findings.append(Finding("too many further attempts", FAULT, f"{measured['retry_percent']} %"))
    return findings


def _breakers(watch: Watch, struck_at: float, mended_at: float) -> dict[str, Any]:
    opened = [at - struck_at for at in watch.opened_at.values()]
    calm = [at - mended_at for at in watch.troubled_at.values()]
    return {
        "opened": len(opened),
        "first_opened_seconds": round(min(opened), 1) if opened else None,
        "last_opened_seconds": round(max(opened), 1) if opened else None,
        "calm_after_seconds": round(max(0.0, *calm), 1) if calm else None,
    }


def _brief(measured: dict[str, Any], load: Load, breakers: dict[str, Any]) -> str:
    return (
        f"{measured['calls']} calls, {measured['served_percent']} % served, {measured['broke_midway']} broke midway, "
        f"failed {measured['failed']}, p50 {measured['p50_ms']} p99 {measured['p99_ms']} ms, "
        f"{measured['attempts']} attempts, {measured['retry_percent']} % retries, booked {measured['booked']}, "
        f"breakers {breakers}, callers late {load.late_seconds:.2f} s"
    )


def _examples(calls: Sequence[Call], attempts: dict[str, list[Attempt]]) -> list[str]:
    return [
        f"{call.phase} {call.request_id} {call.code} {call.reason} after {call.seconds or 0:.2f} of "
        f"{call.deadline_seconds:.1f} s: {call.detail} {[tuple(one) for one in attempts.get(call.request_id, ())]}"
        for call in calls[:_SHOWN_LOST]
    ]
