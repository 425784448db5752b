"""Overload: far more calls than the upstream takes, and who is served, who waits, who is refused, and how.

What is scarce is the upstream: an account's limits, a capacity that must be learned from refusals, or the worker's own
bound. Rates are so low that the machine is not the bottleneck, but for one case that looks for the rate at which it is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.drivers.referee import Finding
from tests.faults.journal import Journal
from tests.faults.overload_figures import Figures, by_source, judge
from tests.faults.overload_load import Call, Load, Source, load_on
from tests.faults.overload_rig import OverloadRig
from tests.faults.report import say

CAMPAIGN = "overload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long each phase of a case lasts."""

    seconds: float = 60.0


@dataclass(slots=True, kw_only=True)
class Trial:
    """One case under way: what it has measured and found so far."""

    rig: OverloadRig
    load: Load
    size: Size
    findings: list[Finding] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    async def phase(self, name: str, *sources: Source, seconds: float | None = None) -> dict[str, Figures]:
        """Let calls come, judge every refusal, and return the figures by source."""
        seconds, before, began_at = seconds or self.size.seconds, self.rig.cpu_seconds(), time.monotonic()
        self.load.late_seconds = 0.0
        calls = await self.load.run(*sources, seconds=seconds)
        after, took_seconds = self.rig.cpu_seconds(), time.monotonic() - began_at
        self.findings += judge(name, calls)
        figures = by_source(calls, seconds)
        cpu = {one: round((after[one] - before[one]) / took_seconds, 2) for one in after}
        shown = {one: each.shown() for one, each in figures.items()}
        self.measured[name] = {**shown, "cores": cpu, "driver_late_ms": round(1000 * self.load.late_seconds)}
        for one, each in shown.items():
            say(f"      {name}: {one} {each}")
        say(f"      {name}: cores {cpu}, driver late {self.measured[name]['driver_late_ms']} ms")
        return figures

    def expect(self, rule: str, *, holds: bool, detail: object) -> None:
        """Note a finding unless something holds; what it came to is kept either way."""
        self.measured.setdefault("rules", {})[rule] = str(detail)
        say(f"      {'ok    ' if holds else 'BROKEN'} {rule}: {detail}")
        if not holds:
            self.findings.append(Finding(rule, str(detail)))

    async def emptied(self, *, within_seconds: float) -> None:
        """See that nobody waits and nothing is under way any more."""
        ends_at = time.monotonic() + within_seconds
        queued = await self.rig.queued()
        while (queued.length or queued.in_flight) and time.monotonic() < ends_at:
            await asyncio.sleep(0.25)
            queued = await self.rig.queued()
        self.expect("the queue is empty afterwards", holds=not (queued.length or queued.in_flight), detail=queued)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to overload. `settings` are those of the gateway that it wants; `limits` those of the account."""

    name: str
    befall: Callable[[Trial], Awaitable[None]]
    limits: dict[str, int] = field(default_factory=dict)
    settings: frozenset[tuple[str, str]] = frozenset()


async def run(rig: OverloadRig, journal: Journal, cases: Sequence[Case], *, seed: int, size: Size) -> None:
    """Run cases that want the same gateway."""
    for case in cases:
        say(f"  {case.name}:")
        started_at = time.monotonic()
        async with rig.account(**case.limits) as account, load_on(rig, seed=seed) as load:
            await load.warm(account)
            trial = Trial(rig=rig, load=load, size=size)
            await case.befall(trial)
            calls = len(load.calls)
            await trial.emptied(within_seconds=20)
        trial.findings += await rig.verdict()
        seconds = round(time.monotonic() - started_at, 1)
        journal.add(
            CAMPAIGN,
            f"{CAMPAIGN}: {case.name}",
            trial.findings,
            seed=seed,
            calls=calls,
            seconds=seconds,
            **trial.measured,
        )
        for finding in dict.fromkeys(trial.findings):
            say(f"      {finding} x {trial.findings.count(finding)}")


def chosen(journal: Journal, cases: Sequence[Case], *, only: Sequence[str], again: bool) -> list[Case]:
    """Return the cases whose names have all these words and that have not passed yet."""
    return [
        case
        for case in cases
        if all(word in case.name for word in only) and (again or not journal.has_passed(f"{CAMPAIGN}: {case.name}"))
    ]


def served_since(calls: Sequence[Call], moment: float) -> list[Call]:
    """Return the calls that began later and were served."""
    return [call for call in calls if call.began_at >= moment and not call.code]
