"""One fault at one side of one boundary, for each of them; then the referee, then calls that must succeed."""

import asyncio
import random
import signal
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.drivers.referee import Finding
from tests.faults.boundaries import Boundary, all_boundaries
from tests.faults.cast import Cast
from tests.faults.gate import AFTER, BEFORE
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.rig import DEAD_AFTER_SECONDS, Driven, Rig
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.strikes import FAULTS, KILL, STOP

CAMPAIGN = "boundaries"
_SCENARIO_SECONDS = 45.0
_ROUNDS = 3
_ON_A_NEW_PROCESS = 2
_SCENARIOS = {scenario.name: scenario for scenario in SCENARIOS}
_STOP_SECONDS = DEAD_AFTER_SECONDS * 1.5

_LAPSED = "needs a permit that lapses while the ledger admits the call; the campaign `revocation` is about those"
_SLOW_LISTENER = "needs a listener who is far behind: HTTP/2's own window takes the whole stream of a test"

NOT_ON_THE_WAY = {
    "ledger/limit_store.py": "administrators' RPCs",
    "ledger/increase_store.py": "administrators' RPCs",
    "ledger/alert_store.py": "administrators' RPCs",
    "ledger/suspense_store.py": "administrators' RPCs",
    "ledger/verification": "the nightly conservation check, and finance's RPC",
    "ledger/housekeeping.py": "chores and gauges of the housekeeper",
    "ledger/upkeep_store.py:create_": "a chore",
    "ledger/upkeep_store.py:missing_partitions": "a chore",
    "ledger/upkeep_store.py:forget_": "a chore",
    "ledger/upkeep_store.py:_impatient": "a chore",
    "ledger/upkeep_store.py:count_open": "a gauge of the housekeeper",
    "ledger/connections.py:create_pool": "once at the start of a process, before it serves",
    "ledger/connections.py:close_pool": "at the end of a process, after the last settlement",
    "ledger/tick.py:Tick.run:": "once at the start of a process, and at its end",
    "ledger/tick.py:Tick._run_lane:e": "once at the start of a process, and at its end",
    "generation/steps.py:SteppedHold.secure_all": _SLOW_LISTENER,
    "generation/streaming.py:ChunkPipe.has_room:": _SLOW_LISTENER,
    "generation/streaming.py:Passage.take:": _SLOW_LISTENER,
    "upstream/http.py:open_transport": "once at the start of a process, before it serves",
    "upstream/upstreams.py:open_upstreams": "once at the start of a process, before it serves",
    "database/engine.py:Database.close": "at the end of a process, after the last settlement",
    "database/engine.py:Database.within": "RPCs that generate nothing, and the log of refusals",
    "generation/attempts.py:Attempts.open:await2": _LAPSED,
    "generation/attempts.py:_confirm": _LAPSED,
    "upstream/dialling.py:_dial:await3": "needs a proxy before an upstream on TLS",
    "upstream/dialling.py:_tunnel": "needs a proxy before an upstream on TLS",
    "upstream/http.py:_Exchange.pieces:await1": "needs a proxy that answers with an error",
    "upstream/openai_compatible.py:OpenAICompatibleUpstream.call:await2": "no model of the tier embeds",
    "upstream/tokens.py:AccessTokens.close": "at the end of a process, after the last settlement",
    "ledger/ledger.py:Ledger.release": "the server has no caller of it: what was not sent is settled as NOT_SENT",
    "ledger/threshold_store.py:raise_above_hold": "needs an upstream that writes more than it was allowed",
    "ledger/transaction.py:TickTransaction._raise_alerts:await2": "as raise_above_hold",
}
"""Boundaries that no call passes, by the beginning of their names, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault at one side of one boundary, under the first of the scenarios that lead there.

    That one may not pass it again, where something is done only once (an alert) or only for a while after something
    else (a look before a plan). Then the others are tried.
    """

    boundary: Boundary
    side: str
    fault: str
    scenarios: Sequence[Scenario]
    hit: int
    seed: int

    @property
    def name(self) -> str:
        """Return what the case is called in the journal and for `--only`."""
        return f"{self.boundary.name} {self.side} {self.fault}"


Reached = Mapping[str, Mapping[str, int]]
"""`boundary side` -> how often each scenario has passed it, by name."""


async def explore(cast: Cast, seed: int) -> Reached:
    """Run every scenario without a fault and note what each passes."""
    reached: dict[str, dict[str, int]] = {}
    rounds = [(trial, scenario) for trial in range(_ROUNDS) for scenario in SCENARIOS]
    for trial, scenario in rounds:
        # What a scenario meets depends on the moment: what was missed is looked for again.
        if trial and not unreached(reached):
            break
        await cast.complete()
        target = cast.one(scenario.role)
        # A process that ends with its scenario can say only before what it has passed: it is asked all along.
        passed = await _watched(cast.rig, target, scenario, seed + trial)
        for point, times in passed.items():
            reached.setdefault(point, {}).setdefault(scenario.name, times)
        await cast.complete()
        wrong = await cast.next_calls(scenario.name) + await cast.rig.verdict()
        say(f"  {scenario.name}: passes {len(passed)} points, {len(wrong)} findings without a fault")
        for finding in wrong:
            say(f"      {finding}")
    return reached


async def _watched(rig: Rig, target: Driven, scenario: Scenario, seed: int) -> Mapping[str, int]:
    await target.passed()
    passed: dict[str, int] = {}
    running = asyncio.create_task(asyncio.wait_for(scenario.run(rig, target, random.Random(seed)), _SCENARIO_SECONDS))
    is_last = False
    while not is_last:
        is_last = running.done()
        for point, times in (await target.passed()).items():
            passed[point] = passed.get(point, 0) + times
        await asyncio.sleep(0.02)
    await running
    return passed


def unreached(reached: Reached) -> list[Boundary]:
    """Return the boundaries that no scenario passes and that nobody has excused."""
    return [
        boundary
        for boundary in all_boundaries()
        if f"{boundary.name} {BEFORE}" not in reached and excuse(boundary) is None
    ]


def excuse(boundary: Boundary) -> str | None:
    """Return why no call passes a boundary; None where one should."""
    return next((why for start, why in NOT_ON_THE_WAY.items() if boundary.name.startswith(start)), None)


def cases(reached: Reached, seed: int, only: Sequence[str]) -> Iterator[Case]:
    """Yield every case there is, those selected by all the words of `only`; the same for the same seed."""
    for boundary in all_boundaries():
        for side in (BEFORE, AFTER):
            found = reached.get(f"{boundary.name} {side}")
            if found is None or excuse(boundary) is not None:
                continue
            scenarios, times = [_SCENARIOS[name] for name in found], next(iter(found.values()))
            for fault in FAULTS:
                own_seed = zlib.crc32(f"{seed} {boundary.name} {side} {fault}".encode())
                hit = 1 + random.Random(own_seed).randrange(max(1, min(times, 4)))
                case = Case(boundary=boundary, side=side, fault=fault, scenarios=scenarios, hit=hit, seed=own_seed)
                if all(word in case.name for word in only):
                    yield case


def case_at(kind: str, place: str, side: str, fault: str, scenario: Scenario) -> Case:
    """Return a case at the first boundary of a kind (await, enter, exit, next) in a file or function."""
    first = next(one for one in all_boundaries() if one.kind == kind and one.name.startswith(place))
    return Case(boundary=first, side=side, fault=fault, scenarios=[scenario], hit=1, seed=1)


async def run_case(cast: Cast, case: Case) -> tuple[bool, list[Finding]]:
    """Run one case; return whether the fault struck, and what is wrong."""
    rig = cast.rig
    first, *others = case.scenarios
    has_struck, findings = await _strike(cast, case, first, case.hit, 0)
    for trial, scenario in enumerate((first, first, *others), start=1):
        if not has_struck and not findings:
            if trial == _ON_A_NEW_PROCESS:
                # Some ways are gone once in a process's life: it keeps what it has opened or read there.
                await cast.renew(scenario.role)
            has_struck, findings = await _strike(cast, case, scenario, 1, trial)
    refused = await cast.next_calls(case.name)
    if refused:
        # What it left in flight is booked only when it is dead.
        await cast.replace("worker-1")
    return has_struck, findings + refused + await rig.verdict()


async def _strike(cast: Cast, case: Case, scenario: Scenario, hit: int, trial: int) -> tuple[bool, list[Finding]]:
    """Lay the trap and run a scenario; return whether the fault struck."""
    await cast.complete()
    target = cast.one(scenario.role)
    await target.arm(name=case.boundary.name, side=case.side, hit=hit, fault=case.fault)
    findings = []
    try:
        async with asyncio.TaskGroup() as group:
            aftermath = group.create_task(_aftermath(cast, target, case))
            # Another try is another load: a request id that was used is used up.
            load = scenario.run(cast.rig, target, random.Random(f"{case.seed} {trial}"))
            await asyncio.wait_for(load, _SCENARIO_SECONDS)
            if not target.struck.is_set():
                aftermath.cancel()
    except TimeoutError:
        findings = [Finding("the load did not end", case.name)]
    await cast.rig.simulator.clear_faults()
    # The trap may have sprung after the load had ended.
    target.send(signal.SIGCONT)
    await target.disarm()
    target.send(signal.SIGCONT)
    await cast.complete()
    return target.struck.is_set(), findings


async def _aftermath(cast: Cast, target: Driven, case: Case) -> None:
    """Do what the world does after a fault: wake who was stopped, start anew who was killed."""
    await target.struck.wait()
    if case.fault == STOP:
        await asyncio.sleep(_STOP_SECONDS)
        target.send(signal.SIGCONT)
    elif case.fault == KILL:
        await asyncio.wait_for(target.ended.wait(), 10)
        await cast.complete()


async def run(rig: Rig, journal: Journal, *, seed: int, only: Sequence[str] = (), again: bool = False) -> None:
    """Run every case that has not passed yet."""
    cast = Cast(rig)
    reached = await explore(cast, seed)
    missed = unreached(reached)
    findings = [Finding("no scenario passes", f"{one.name} (line {one.line})") for one in missed]
    journal.add(CAMPAIGN, "every boundary is reached", findings, seconds=0.0, seed=seed)
    for finding in findings:
        say(f"  {finding}")
    chosen = list(cases(reached, seed, only))
    waiting = [case for case in chosen if again or not journal.has_passed(case.name)]
    say(f"  {len(all_boundaries())} boundaries, {len(chosen)} cases, {len(waiting)} to run")
    for number, case in enumerate(waiting, start=1):
        started_at = time.monotonic()
        has_struck, wrong = await run_case(cast, case)
        seconds = round(time.monotonic() - started_at, 2)
        journal.add(CAMPAIGN, case.name, wrong, struck=has_struck, seconds=seconds, seed=seed, hit=case.hit)
        mark = "FAILED" if wrong else "ok" if has_struck else "not struck"
        place = f"{case.scenarios[0].name}, hit {case.hit}, seed {seed}"
        say(f"  {number}/{len(waiting)} {case.name} ({place}): {mark} {seconds} s")
        if wrong:
            await cast.replace("worker-1")
            for finding in wrong:
                say(f"      {finding}")
            say(f"      again: make faults ARGS='boundaries --seed {seed} --again --only \"{case.name}\"'")
