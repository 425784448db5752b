"""Keys are rotated under load while those who rotate them are killed at every step; nobody may notice.

The supervisor's housekeeper is killed at random moments and started again by it. Beside it housekeepers with gates in
them work on the same rotations, each of which kills itself at one boundary: the one that was struck least so far. A
rotation that was struck goes on when its lease has ended, 90 s later, so many accounts go through one at a time.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
from tollhouse.admin.v1 import upstream_keys_pb2 as keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as keys_grpc
from tollhouse_server.errors import TollhouseError

from tests.drivers.callers import bearer
from tests.drivers.referee import Finding
from tests.drivers.stack import RunningStack
from tests.faults.boundaries import ROOT, boundaries_of
from tests.faults.gate import AFTER, BEFORE
from tests.faults.journal import Journal
from tests.faults.key_rig import KeyLoad, KeyRig, all_workers_serve, calls_on, live_keys
from tests.faults.report import say
from tests.faults.rig import Driven, Rig
from tests.faults.strikes import KILL

CAMPAIGN = "rotations"
GOAL = 1000
ACCOUNTS = 100
"""So many rotations go on at a time; they make a block."""

DRAIN_SECONDS = 8
RATE = 50.0

_STRUCK_FILES = ("custody/rotations.py", "custody/providers/google.py", "custody/probe.py")
_UNSTRUCK = ("_begin_roll_back", "_note_failure", "_put_off", "_give_back", "strays", "_still_used")
"""Functions of steps that fail, which here they do not; and one that its caller's boundary stands for."""

_PATIENCE_SECONDS = 2.0
_PASSING_SHARE = 0.8
_WARM_UP_SECONDS = 0.5
_HOUSEKEEPERS = 2
_OVER_SECONDS = 420.0
_SPREAD_SECONDS = 15.0
_CANCELLED_OF = 10

_SETTINGS = {"TOLLHOUSE_WORKER_DEAD_AFTER_SECONDS": "20"}
"""Of the housekeepers with gates: what `rig.running_forks` shortens would have them declare living workers dead."""

_OPEN = "SELECT count(*) FROM key_rotation WHERE ended_at IS NULL"
_ROTATIONS = """
SELECT account_id, rotation_id, old_key_id, new_key_id, outcome, step, error FROM key_rotation WHERE created_at >= $1
"""
_KEYS = "SELECT account_id, key_id, state, fingerprint FROM upstream_key WHERE account_id = ANY ($1)"
_DRAINED = """
SELECT resource, occurred_at FROM audit_event
WHERE occurred_at >= $1 AND before ->> 'step' = 'DRAIN' AND after ->> 'step' = 'RETIRE'
"""
_REFUSED = "SELECT count(*) FROM usage_record WHERE settled_at >= $1 AND kind <> 'SETTLED'"


@dataclass(slots=True)
class Strikes:
    """Which boundaries were struck how often, over all runs."""

    struck: Counter[tuple[str, str]]
    dice: random.Random
    places: Sequence[tuple[str, str]]
    in_vain: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def after(cls, journal: Journal, dice: random.Random) -> "Strikes":
        """Go on from what earlier runs have struck."""
        known = places()
        struck = Counter(dict.fromkeys(known, 0))
        for result in journal.of(CAMPAIGN):
            for text, count in result.get("struck_at", {}).items():
                name, _, side = text.rpartition(" ")
                struck[name, side] += count
        return cls(struck, dice, known)

    def next(self, passing: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Return the boundary and side that was struck, or tried, least: mostly of those that are passed just now."""
        among = passing if passing and self.dice.random() < _PASSING_SHARE else self.places
        least = min(self.struck[one] + self.in_vain[one] for one in among)
        return self.dice.choice([one for one in among if self.struck[one] + self.in_vain[one] == least])


def places() -> list[tuple[str, str]]:
    """Return the boundaries of the steps of rotations, each with both of its sides."""
    names = [
        boundary.name
        for file in _STRUCK_FILES
        for boundary in boundaries_of(ROOT / file)
        if boundary.function.rpartition(".")[2] not in _UNSTRUCK
    ]
    return [(name, side) for name in names for side in (BEFORE, AFTER)]


@dataclass(slots=True)
class Block:
    """One rotation of every account, and what befalls those who carry it out."""

    rig: KeyRig
    forks: Rig
    strikes: Strikes
    dice: random.Random
    accounts: Sequence[str]
    struck_at: Counter[str] = field(default_factory=Counter)
    random_kills: int = 0
    asked: int = 0
    cancelled: int = 0
    may_strike: bool = True
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One question at a time goes through the rig's connection."""

    async def run(self) -> None:
        """Ask for the rotations and strike until each was struck once on average; then let them end in peace."""
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(self._ask))
            for _ in range(_HOUSEKEEPERS):
                group.create_task(self._strike_at_boundaries())
            group.create_task(self._kill_at_random())
        ends_at = time.monotonic() + _OVER_SECONDS
        while await self.rig.root.fetchval(_OPEN):
            if time.monotonic() > ends_at:
                return
            await asyncio.sleep(0.5)

    def _ask(self) -> None:
        """Ask for a rotation of each account's key by RPC; some are cancelled at once, if they still can be."""
        metadata = bearer(self.rig.gateway.admin_api_key)
        with grpc.insecure_channel(self.rig.gateway.grpc) as channel:
            stub = keys_grpc.UpstreamKeyServiceStub(channel)
            for number, account in enumerate(self.accounts):
                listed = stub.ListUpstreamKeys(
                    keys.ListUpstreamKeysRequest(parent=f"accounts/{account}", page_size=1000), metadata=metadata
                )
                active = [key for key in listed.upstream_keys if key.state == keys.UpstreamKey.STATE_ACTIVE]
                begun = stub.RotateUpstreamKey(keys.RotateUpstreamKeyRequest(name=active[0].name), metadata=metadata)
                self.asked += 1
                if number % _CANCELLED_OF == 0:
                    with suppress(grpc.RpcError):
                        stub.CancelKeyRotation(keys.CancelKeyRotationRequest(name=begun.name), metadata=metadata)
                        self.cancelled += 1
                time.sleep(_SPREAD_SECONDS / len(self.accounts))

    async def _strike_at_boundaries(self) -> None:
        while self.struck_at.total() < len(self.accounts) and await self._is_under_way():
            driven = await self.forks.start("housekeeper")
            while not driven.ended.is_set() and await self._is_under_way():
                await self._strike(driven)
            await self.forks.end(driven)
        self.may_strike = False

    async def _strike(self, driven: Driven) -> None:
        """Have a housekeeper kill itself at the next boundary; in vain when nothing passes there just now."""
        await asyncio.sleep(_WARM_UP_SECONDS)
        passed = {(name, side) for name, _, side in (text.rpartition(" ") for text in await driven.passed())}
        place = self.strikes.next([one for one in self.strikes.places if one in passed])
        name, side = place
        await driven.arm(name=name, side=side, hit=1, fault=KILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(driven.ended.wait(), _PATIENCE_SECONDS)
        if driven.struck.is_set():
            self.strikes.struck[place] += 1
            self.struck_at[f"{name} {side}"] += 1
        else:
            self.strikes.in_vain[place] += 1
            await driven.disarm()

    async def _is_under_way(self) -> bool:
        async with self.looking:
            return self.asked < len(self.accounts) or bool(await self.rig.root.fetchval(_OPEN))

    async def _kill_at_random(self) -> None:
        while self.may_strike:
            await asyncio.sleep(self.dice.uniform(1.0, 8.0))
            for process in self.rig.children("housekeeper"):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
                    self.random_kills += 1


async def run(
    started: tuple[KeyRig, RunningStack], journal: Journal, *, seed: int, rotations: int, accounts: int = ACCOUNTS
) -> None:
    """Carry so many more rotations through."""
    rig, forks_process = started
    names = [f"rotating-{number}" for number in range(min(accounts, rotations))]
    for account in names:
        await asyncio.to_thread(rig.add_account, account, drain_seconds=DRAIN_SECONDS)
    await asyncio.to_thread(rig.disable_first_account)
    await all_workers_serve(rig)
    async with asyncio.TaskGroup() as group:
        forks = Rig(rig.parts, forks_process, _SETTINGS, rig.root, rig.simulator, rig.referee, group)
        done = 0
        while done < rotations:
            own_seed = seed * 10_000 + len(journal.of(CAMPAIGN))
            dice = random.Random(own_seed)
            some = names[: rotations - done]
            block = Block(rig, forks, Strikes.after(journal, dice), dice, some)
            findings, measured = await carry_through(block, seed=own_seed)
            journal.add(CAMPAIGN, f"rotations {own_seed}", findings, seed=own_seed, **measured)
            say(f"  {measured['brief']}, seed {own_seed}")
            for finding in findings:
                say(f"      {finding}")
            done += len(some)
    say(f"  so far over all runs: {progress(journal)}, of {GOAL} rotations wanted")


def progress(journal: Journal) -> dict[str, int]:
    """Return what the blocks that passed came to."""
    passed = [result for result in journal.of(CAMPAIGN) if not result["findings"]]
    sums = {what: sum(result[what] for result in passed) for what in ("rotations", "kills", "calls")}
    places_struck = {place for result in passed for place in result["struck_at"]}
    return {**sums, "boundaries struck": len(places_struck), "boundaries": len(places())}


async def carry_through(block: Block, *, seed: int) -> tuple[list[Finding], dict[str, Any]]:
    """Run a block under load; return what is wrong, and what was done."""
    rig, started_at = block.rig, time.monotonic()
    since = await rig.root.fetchval("SELECT clock_timestamp()")
    async with calls_on(rig, rate=RATE, seed=seed) as load:
        await block.run()
    findings = load.findings() + await judge(rig, block.accounts, since) + await rig.verdict()
    return findings, _measured(block, load, time.monotonic() - started_at)


def _measured(block: Block, load: KeyLoad, seconds: float) -> dict[str, Any]:
    kills = block.struck_at.total() + block.random_kills
    brief = (
        f"{len(block.accounts)} rotations ({block.cancelled} cancelled), {block.struck_at.total()} kills at "
        f"{len(block.struck_at)} boundaries, {block.random_kills} at random, {load.total} calls, "
        f"{len(load.failed)} failed, slowest {load.slowest_seconds:.1f} s, {seconds:.0f} s"
    )
    return {
        "rotations": len(block.accounts),
        "kills": kills,
        "calls": load.total,
        "struck_at": dict(block.struck_at),
        "seconds": round(seconds, 1),
        "brief": brief,
    }


async def judge(rig: KeyRig, accounts: Sequence[str], since: Any) -> list[Finding]:
    """Hold the provider's key book, its log of calls, PostgreSQL and Vault against each other."""
    rows = await rig.root.fetch(_ROTATIONS, since)
    findings = [
        Finding(
            "a rotation was not finished", f"{row['account_id']}/{row['rotation_id']}", f"{row['step']}: {row['error']}"
        )
        for row in rows
        if row["outcome"] not in {"SUCCEEDED", "CANCELLED"}
    ]
    held = await rig.root.fetch(_KEYS, list(accounts))
    for account in accounts:
        own = {row["key_id"]: row["state"] for row in held if row["account_id"] == account}
        active = [key for key, state in own.items() if state == "ACTIVE"]
        between = {key: state for key, state in own.items() if state not in {"ACTIVE", "RETIRED"}}
        live = await asyncio.to_thread(live_keys, rig.simulator.url, account)
        in_vault = await _in_vault(rig, account)
        if len(active) != 1 or between or live != active or in_vault != active:
            detail = f"active {active}, between {between}, at the provider {live}, in Vault {in_vault}"
            findings.append(Finding("a key is left behind", account, detail))
    return findings + await _used_too_late(rig, held, rows, since) + await _refused(rig, since)


async def _in_vault(rig: KeyRig, account: str) -> list[str]:
    try:
        return sorted(await rig.vault.list_secrets(f"upstream-keys/{account}"))
    except TollhouseError as error:
        return [f"({error})"]


async def _used_too_late(rig: KeyRig, held: Sequence[Any], rows: Sequence[Any], since: Any) -> list[Finding]:
    """An old key serves no call after the end of its drain."""
    fingerprints = {(row["account_id"], row["key_id"]): row["fingerprint"] for row in held}
    drained = {row["resource"]: row["occurred_at"] for row in await rig.root.fetch(_DRAINED, since)}
    last_use: dict[str, int] = {}
    for call in await rig.simulator.calls():
        last_use[call.key_id] = max(last_use.get(call.key_id, 0), call.served_at_ms)
    findings = []
    for row in rows:
        name = f"accounts/{row['account_id']}/keyRotations/{row['rotation_id']}"
        if row["outcome"] != "SUCCEEDED":
            continue
        old = fingerprints[row["account_id"], row["old_key_id"]]
        late = last_use.get(old, 0) / 1000 - drained[name].timestamp()
        if late > 0:
            findings.append(Finding("an old key was used after its drain", name, f"{late:.2f} s"))
    return findings


async def _refused(rig: KeyRig, since: Any) -> list[Finding]:
    """No attempt was refused, not even one that another key made up for."""
    count = await rig.root.fetchval(_REFUSED, since)
    return [Finding("attempts were not settled", str(count))] if count else []
