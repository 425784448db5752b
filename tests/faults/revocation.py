"""Revocations under load while a server stands still: two seconds after each acknowledgement nothing is admitted.

Each victim calls all three servers all the time. In each round one server's worker is stopped (SIGSTOP) for a random
time, and every victim loses his right at a random moment in it, in one of four ways, through a server that runs.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
from tollhouse.admin.v1 import api_keys_pb2, groups_pb2, principals_pb2, roles_pb2
from tollhouse_server.embedded.postgres_roles import ROOT
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.callers import bearer, details_of, prompt
from tests.drivers.fleet import Fleet
from tests.drivers.load import Caller
from tests.drivers.referee import Finding
from tests.faults.journal import Journal
from tests.faults.report import say

CAMPAIGN = "revocation"
SERVERS = 3
PROMISED = timedelta(seconds=2)
VICTIMS = 12
"""At a time."""

_TENANT = "tenants/demo"
_PROJECT = f"{_TENANT}/departments/revoked/projects/revoked"
_PAUSE_SECONDS = 0.05
_ACT_SECONDS = 60.0
_CALL_SECONDS = 10.0
_LONGEST_STOP_SECONDS = 6.0
_AFTERWARDS_SECONDS = 3.0
_LIVE_SECONDS = 60.0
_SENT_LATE = timedelta(seconds=1)
"""What an upstream call may take from when it is sent to when the simulator, on a busy machine, has served it."""

_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)

_ADMITTED = """
SELECT attempt_id::text, principal_id, dispatched_at FROM usage_record
WHERE tenant_id = 'demo' AND principal_id = ANY ($1::text[]) AND outcome <> 'NOT_SENT' AND kind <> 'ADJUSTMENT'
"""


@dataclass(slots=True)
class Victim:
    """Who will lose what he has: in which way, with which key, and when that was acknowledged."""

    principal_id: str
    way: str
    secret: str
    revoke: Any
    acknowledged_at: datetime | None = None
    served: int = 0
    lives: asyncio.Event = field(default_factory=asyncio.Event)
    told: Counter[str] = field(default_factory=Counter)

    @property
    def principal(self) -> str:
        """Resource name."""
        return f"{_TENANT}/principals/{self.principal_id}"


@dataclass(slots=True)
class Rig:
    """The fleet, a channel to each of its servers, its database and its upstream."""

    fleet: Fleet
    channels: list[grpc.aio.Channel]
    root: "asyncpg.Connection[asyncpg.Record]"
    simulator: SimulatorClient
    dice: random.Random
    made: int = 0

    async def administer(self, request: Any, *, server: int) -> Any:
        """Send an administrative request to one server as the platform's administrator."""
        method = request.DESCRIPTOR.name.removesuffix("Request")
        pb = {"ApiKey": api_keys_pb2, "Role": roles_pb2, "Group": groups_pb2, "Principal": principals_pb2}
        noun = next(name for name in pb if name in method)
        path, answer = f"/tollhouse.admin.v1.{noun}Service/{method}", _ANSWERS.get(method)
        call: Any = self.channels[server].unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=answer
        )
        metadata = bearer(self.fleet.first.admin_api_key)
        return await call(request, metadata=metadata, timeout=_ACT_SECONDS, wait_for_ready=True)


_ANSWERS: dict[str, Callable[[bytes], Any]] = {
    "CreateApiKey": api_keys_pb2.CreateApiKeyResponse.FromString,
    "CreateRoleGrant": roles_pb2.RoleGrant.FromString,
}


@asynccontextmanager
async def open_rig(fleet: Fleet, *, seed: int) -> AsyncIterator[Rig]:
    """Open the connections of a campaign; department `revoked` has been made."""
    root = await asyncpg.connect(fleet.dsn(ROOT))
    channels = [grpc.aio.insecure_channel(target, options=_OPTIONS) for target in fleet.targets]
    try:
        async with SimulatorClient(str(fleet.first.run["simulator"])) as simulator:
            await simulator.set_pace(latency_ms=20, tokens_per_second=0)
            rig = Rig(fleet, channels, root, simulator, random.Random(seed), made=int(time.time()) % 10**8)
            await rig.administer(groups_pb2.CreateGroupRequest(parent=_TENANT, group_id="callers"), server=0)
            grant = roles_pb2.RoleGrant(group=f"{_TENANT}/groups/callers", role="roles/caller", scope=_PROJECT)
            await rig.administer(roles_pb2.CreateRoleGrantRequest(parent=_TENANT, role_grant=grant), server=0)
            yield rig
    finally:
        for channel in channels:
            await channel.close()
        await root.close()


async def run(rig: Rig, journal: Journal, *, seed: int, revocations: int) -> None:
    """Revoke so many rights, a dozen at a time, and judge what was admitted after each."""
    done = 0
    while done < revocations:
        started_at = time.monotonic()
        victims = await asyncio.gather(*(_victim(rig, way) for way in _ways(min(VICTIMS, revocations - done))))
        stopped_seconds = await _round(rig, victims)
        findings, latest = await _judge(rig, victims)
        done += len(victims)
        told = sum((victim.told for victim in victims), Counter[str]())
        measured: dict[str, Any] = {
            "revocations": len(victims),
            "served": sum(victim.served for victim in victims),
            "stopped_seconds": round(stopped_seconds, 2),
            "latest_seconds": round(latest, 3),
            "told": dict(told),
            "seconds": round(time.monotonic() - started_at, 1),
        }
        journal.add(CAMPAIGN, f"from victim {victims[0].principal_id}", findings, seed=seed, **measured)
        say(f"  {done}/{revocations}: {measured}")
        for finding in findings:
            say(f"      {finding}")


def _ways(count: int) -> list[str]:
    return [("key", "grant", "membership", "principal")[number % 4] for number in range(count)]


async def _victim(rig: Rig, way: str) -> Victim:
    """Make somebody who may call, and know how he will not be allowed to any more."""
    rig.made += 1
    victim = Victim(principal_id=f"victim-{rig.made}", way=way, secret="", revoke=None)
    kind = principals_pb2.Principal(kind=principals_pb2.Principal.KIND_SERVICE_ACCOUNT)
    await rig.administer(
        principals_pb2.CreatePrincipalRequest(parent=_TENANT, principal_id=victim.principal_id, principal=kind),
        server=0,
    )
    if way == "membership":
        group, names = f"{_TENANT}/groups/callers", [victim.principal]
        await rig.administer(groups_pb2.AddGroupMembersRequest(name=group, principals=names), server=0)
        victim.revoke = groups_pb2.RemoveGroupMembersRequest(name=group, principals=names)
    else:
        grant = roles_pb2.RoleGrant(principal=victim.principal, role="roles/caller", scope=_PROJECT)
        made = await rig.administer(roles_pb2.CreateRoleGrantRequest(parent=_TENANT, role_grant=grant), server=0)
        victim.revoke = roles_pb2.DeleteRoleGrantRequest(name=made.name)
    key = api_keys_pb2.ApiKey(principal=victim.principal)
    answer = await rig.administer(api_keys_pb2.CreateApiKeyRequest(parent=_PROJECT, api_key=key), server=0)
    victim.secret = answer.secret
    if way == "key":
        victim.revoke = api_keys_pb2.RevokeApiKeyRequest(name=answer.api_key.name)
    elif way == "principal":
        victim.revoke = principals_pb2.DisablePrincipalRequest(name=victim.principal)
    return victim


async def _round(rig: Rig, victims: Sequence[Victim]) -> float:
    """Have all victims call, stop a server, revoke, let it go on; return for how long it stood still."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for victim in victims:
            for channel in rig.channels:
                group.create_task(_keep_calling(Caller(channel, victim.secret), victim, stop))
        async with asyncio.timeout(_LIVE_SECONDS):
            await asyncio.gather(*(victim.lives.wait() for victim in victims))
        stopped, seconds = (
            rig.dice.randrange(SERVERS),
            max(rig.dice.uniform(0.2, _LONGEST_STOP_SECONDS) for _ in range(2)),
        )
        running = [number for number in range(SERVERS) if number != stopped]
        async with asyncio.TaskGroup() as acts:
            acts.create_task(_stand_still(rig, stopped, seconds))
            for victim in victims:
                # Mostly so early that a call which was let in before is too late when its process goes on.
                after_seconds = rig.dice.uniform(0, rig.dice.choice((0.3, max(0.3, seconds - 2), seconds + 0.5)))
                acts.create_task(_revoke(rig, victim, after_seconds, server=rig.dice.choice(running)))
        await asyncio.sleep(_AFTERWARDS_SECONDS)
        stop.set()
    return seconds


async def _keep_calling(caller: Caller, victim: Victim, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await caller.unary(prompt("May I?", parent=_PROJECT), seconds=_CALL_SECONDS)
            victim.served += 1
            victim.lives.set()
        except grpc.aio.AioRpcError as error:
            info = details_of(error).get("ErrorInfo") if error.trailing_metadata() else None
            victim.told[str(getattr(info, "reason", error.code().name))] += 1
        try:
            await asyncio.wait_for(stop.wait(), _PAUSE_SECONDS)
        except TimeoutError:
            continue


async def _stand_still(rig: Rig, server: int, seconds: float) -> None:
    """Stop the one worker of a server for a while."""
    parent = rig.fleet.servers[server].process.pid
    workers = [worker for worker in rig.fleet.workers() if worker.ppid() == parent]
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGCONT)


async def _revoke(rig: Rig, victim: Victim, after_seconds: float, *, server: int) -> None:
    await asyncio.sleep(after_seconds)
    await rig.administer(victim.revoke, server=server)
    victim.acknowledged_at = datetime.now(UTC)


async def _judge(rig: Rig, victims: Sequence[Victim]) -> tuple[list[Finding], float]:
    """Return what was admitted or sent too late, and how late after an acknowledgement the last call was admitted."""
    by_id = {victim.principal_id: victim for victim in victims}
    rows = await rig.root.fetch(_ADMITTED, list(by_id))
    sent_at = {
        call.attempt_id: datetime.fromtimestamp(call.served_at_ms / 1000, UTC) for call in await rig.simulator.calls()
    }
    findings, latest = [], float("-inf")
    for row in rows:
        victim = by_id[row["principal_id"]]
        assert victim.acknowledged_at is not None
        late = row["dispatched_at"] - victim.acknowledged_at
        latest = max(latest, late.total_seconds())
        if late > PROMISED:
            findings.append(Finding("admitted after a revocation", row["attempt_id"], f"{victim.way}, {late}"))
        served_at = sent_at.get(row["attempt_id"])
        if served_at is not None and served_at - victim.acknowledged_at > PROMISED + _SENT_LATE:
            findings.append(Finding("sent after a revocation", row["attempt_id"], f"{victim.way}, {served_at}"))
    return findings, latest
