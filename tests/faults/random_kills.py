"""kill -9 at random moments under load, of workers, housekeeper and supervisor, and callers that hang up anywhere."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from tests.drivers.callers import generation_stub, prompt
from tests.drivers.referee import Finding
from tests.faults.cast import Cast
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.rig import SETTINGS, Rig
from tests.faults.traffic import KILLED, Manner, traffic_on

CAMPAIGN = "random"
GOAL = 1000
"""Kills, and hang-ups, that all runs together come to."""

_BLOCK = 25
_CALLERS = 10
_NEXT_CALLS = 1000
_END_SECONDS = 30.0


def progress(journal: Journal) -> dict[str, int]:
    """Return how many kills and hang-ups the blocks that passed have seen."""
    passed = [result for result in journal.of(CAMPAIGN) if not result["findings"]]
    return {what: sum(result.get(what, 0) for result in passed) for what in ("kills", "hang_ups", "supervisor_kills")}


async def run(rig: Rig, journal: Journal, *, seed: int, kills: int, supervisor_kills: int) -> None:
    """Kill `kills` more processes, then `supervisor_kills` supervisors; then make calls that must all succeed."""
    cast = Cast(rig, workers=2)
    done = 0
    while done < kills:
        count, own_seed = min(_BLOCK, kills - done), seed * 10_000 + len(journal.of(CAMPAIGN))
        findings, measured = await block(cast, seed=own_seed, kills=count)
        journal.add(CAMPAIGN, f"block {own_seed}", findings, seed=own_seed, **measured)
        say(f"  {measured}, seed {own_seed}")
        for finding in findings:
            say(f"      {finding}")
        done += count
    await _thousand_more(cast, journal, seed)
    await cast.dismiss()
    for _ in range(supervisor_kills):
        await _kill_supervisor(rig, journal, seed=seed * 10_000 + len(journal.of(CAMPAIGN)))
    say(f"  so far over all runs: {progress(journal)}, of {GOAL} kills and {GOAL} hang-ups wanted")


async def block(cast: Cast, *, seed: int, kills: int) -> tuple[list[Finding], dict[str, Any]]:
    """Kill at random moments under load; return what is wrong, and what was done."""
    started_at, dice = time.monotonic(), random.Random(seed)
    manner = Manner(seconds=20, hang_up_rate=0.4, may_be_told=KILLED)
    await cast.complete()
    async with traffic_on(cast.rig, *[manner] * _CALLERS, seed=seed) as traffic:
        for _ in range(kills):
            await asyncio.sleep(dice.uniform(0.1, 0.6))
            roles = sorted(cast.playing)
            await cast.replace(dice.choices(roles, [1 if role == "housekeeper" else 5 for role in roles])[0])
    findings = traffic.findings + await cast.next_calls("after the kills") + await cast.rig.verdict()
    return findings, {
        "kills": kills,
        "hang_ups": traffic.hang_ups,
        "calls": traffic.told.total(),
        "suspense": cast.rig.referee.count("SUSPENSE"),
        "seconds": round(time.monotonic() - started_at, 1),
    }


async def _thousand_more(cast: Cast, journal: Journal, seed: int) -> None:
    """After all that, nobody is refused."""
    started_at = time.monotonic()
    await cast.complete()
    findings = await cast.next_calls("the next thousand", _NEXT_CALLS) + await cast.rig.verdict()
    seconds = round(time.monotonic() - started_at, 1)
    journal.add(CAMPAIGN, "the next thousand calls", findings, calls=_NEXT_CALLS, seconds=seconds, seed=seed)
    say(f"  the next {_NEXT_CALLS} calls: {len(findings)} findings, {seconds} s")


async def _kill_supervisor(rig: Rig, journal: Journal, *, seed: int) -> None:
    """Nothing of a server outlives its supervisor for long, and the next one finds the books."""
    started_at, findings = time.monotonic(), list[Finding]()
    manner = Manner(seconds=15, hang_up_rate=0.3, may_be_told=KILLED)
    with supervised(rig) as supervisor:
        await asyncio.to_thread(until_served, rig)
        family = psutil.Process(supervisor.pid).children(recursive=True)
        async with traffic_on(rig, *[manner] * _CALLERS, seed=seed) as traffic:
            await asyncio.sleep(random.Random(seed).uniform(0.5, 1.5))
            supervisor.kill()
            killed_at = time.monotonic()
            _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=_END_SECONDS)
        findings += [Finding("outlived its supervisor", " ".join(one.cmdline())) for one in alive]
        gone_after = round(time.monotonic() - killed_at, 1)
    with supervised(rig):
        await asyncio.to_thread(until_served, rig)
        findings += traffic.findings + await rig.verdict()
    seconds = round(time.monotonic() - started_at, 1)
    journal.add(CAMPAIGN, f"supervisor {seed}", findings, supervisor_kills=1, seconds=seconds, seed=seed)
    say(f"  a killed supervisor (seed {seed}): {len(findings)} findings, all gone after {gone_after} s, {seconds} s")
    for finding in findings:
        say(f"      {finding}")


@contextmanager
def supervised(rig: Rig) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `tollhouse-server serve` on the rig's parts; it is told to end at the end."""
    environment = {**rig.parts.environment, **SETTINGS, "TOLLHOUSE_WORKERS": "2"}
    with (rig.parts.directory / "serve.out").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollhouse_server", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(_END_SECONDS)


def until_served(rig: Rig) -> None:
    """Wait until a call is served."""
    with generation_stub(rig.stack) as stub:
        metadata = (("authorization", f"Bearer {rig.key}"),)
        stub.GenerateContent(prompt("Open?"), metadata=metadata, timeout=30, wait_for_ready=True)
