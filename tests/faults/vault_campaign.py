"""Vault goes away under load, in every way that it can; calls go on with the keys that are held.

Each case: calls in good health, the trouble for a while, Vault's return; then a new key must be in use on every worker
within half a minute. In the midst of a trouble the health page and the metrics are read, a new key is refused with a
clear word, and a rotation is asked for that ends by itself once Vault is back.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families
from tollhouse.admin.v1 import upstream_keys_pb2 as keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as keys_grpc
from tollhouse_server.embedded.openbao_api import OpenBaoApi
from tollhouse_server.vault.approle import ROLES

from tests.drivers.callers import bearer, reason_of
from tests.drivers.referee import Finding
from tests.faults.journal import Journal
from tests.faults.key_rig import KeyLoad, KeyRig, all_workers_serve, calls_on, issued_key, project_of
from tests.faults.report import say

CAMPAIGN = "vault"
RATE = 50.0
HEALTHY, AWAY, BACK = "healthy", "away", "back"
BACK_WITHIN_SECONDS = 30.0
ROTATED_WITHIN_SECONDS = 240.0

_ACCOUNT = "held"
_REMARK = "Vault cannot be reached; keys in memory keep serving"
_HEALTHY_SECONDS = 5.0
_SEEN_WITHIN_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_STOP_SECONDS = 45.0
_TRIES_SECONDS = 90.0
_SAID = "tollhouse-server: Vault is not available"
_STARTS_IN_VAIN = 3
_SLOW = (3.0, 0.3)
"""A slow Vault stands still for so long, then moves for so long."""

Act = Callable[[KeyRig], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One trouble: what begins it, what goes on while it lasts, what ends it."""

    name: str
    strike: Act
    mend: Act
    meanwhile: Act | None = None
    is_seen: bool = True
    """Whether the health page says that Vault is away."""

    restarts_worker: bool = False


@dataclass(slots=True)
class Told:
    """What the server said of itself during a case."""

    rig: KeyRig
    load: KeyLoad
    findings: list[Finding] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    async def page(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(self.rig.page, path)

    async def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample, None where there is none."""
        _, text = await self.page("metrics")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]], *, seconds: float, since: float) -> None:
        """Wait until something holds, and note how long that took; a finding when it does not in time."""
        while not await holds():
            if time.monotonic() > since + seconds:
                self.findings.append(Finding("not in time", what, f"{seconds:.0f} s"))
                return
            await asyncio.sleep(_LOOK_SECONDS)
        self.measured[f"{what}_seconds"] = round(time.monotonic() - since, 1)

    async def vault_is_shown(self, *, up: bool) -> bool:
        """Tell whether health page and metrics both say so."""
        status, text = await self.page("readyz")
        is_remarked = _REMARK in text
        value = await self.metric("tollhouse_part_up", part="vault")
        return status == 200 and is_remarked is not up and value == (1.0 if up else 0.0)

    async def all_keys_are_held(self) -> bool:
        """Tell whether no process lacks a key."""
        return await self.metric("tollhouse_upstream_keys", state="missing") == 0.0


# --- troubles ---------------------------------------------------------------------------------------------------------


async def _nothing(_: KeyRig) -> None:
    return


async def _seal(rig: KeyRig) -> None:
    await rig.parts.openbao.seal()


async def _unseal(rig: KeyRig) -> None:
    await rig.parts.openbao.unseal()


async def _stop(rig: KeyRig) -> None:
    await rig.parts.openbao.stop()


async def _start(rig: KeyRig) -> None:
    await rig.parts.openbao.start()


def _sends(number: signal.Signals) -> Act:
    async def send(rig: KeyRig) -> None:
        child = rig.parts.openbao.child
        assert child is not None
        os.kill(child.pid, number)

    return send


async def _crawl(rig: KeyRig) -> None:
    """Stand still and move by turns, until cancelled."""
    stop, go = _sends(signal.SIGSTOP), _sends(signal.SIGCONT)
    while True:
        await stop(rig)
        await asyncio.sleep(_SLOW[0])
        await go(rig)
        await asyncio.sleep(_SLOW[1])


async def _revoke_tokens(rig: KeyRig) -> None:
    """Revoke every token that a process of ours has, again and again."""
    while True:
        async with _as_root(rig) as api:
            await api.put("sys/leases/revoke-prefix/auth/approle/login")
        await asyncio.sleep(_SLOW[0])


async def _destroy_secret_ids(rig: KeyRig) -> None:
    """Destroy the roles' secret ids and what they have logged in as: as after a leak, before the new ones are there."""
    async with _as_root(rig) as api:
        for role in ROLES:
            held = await asyncio.to_thread(_files(rig, role).secret_id_file.read_text)
            await api.put(f"auth/approle/role/{role}/secret-id/destroy", {"secret_id": held.strip()})
        await api.put("sys/leases/revoke-prefix/auth/approle/login")


async def _write_new_secret_ids(rig: KeyRig) -> None:
    async with _as_root(rig) as api:
        for role in ROLES:
            made = await api.put(f"auth/approle/role/{role}/secret-id")
            await asyncio.to_thread(_files(rig, role).secret_id_file.write_text, made["data"]["secret_id"])


def _files(rig: KeyRig, role: str) -> Any:
    openbao = rig.parts.endpoints[1]
    return openbao.gateway if role == ROLES[0] else openbao.key_custodian


@asynccontextmanager
async def _as_root(rig: KeyRig) -> AsyncIterator[OpenBaoApi]:
    openbao = rig.parts.openbao
    async with OpenBaoApi(rig.parts.endpoints[1].address, token=openbao._keys()["root_token"]) as api:
        yield api


CASES = (
    Case(name="sealed", strike=_seal, mend=_unseal),
    Case(name="stopped", strike=_stop, mend=_start, restarts_worker=True),
    Case(name="killed", strike=_sends(signal.SIGKILL), mend=_start),
    Case(name="hanging", strike=_sends(signal.SIGSTOP), mend=_sends(signal.SIGCONT), restarts_worker=True),
    Case(name="slow", strike=_nothing, meanwhile=_crawl, mend=_sends(signal.SIGCONT), is_seen=False),
    Case(name="tokens revoked", strike=_nothing, meanwhile=_revoke_tokens, mend=_nothing, is_seen=False),
    Case(name="secret ids replaced", strike=_destroy_secret_ids, mend=_write_new_secret_ids),
)


# --- the course of a case ---------------------------------------------------------------------------------------------


async def run(
    rig: KeyRig, journal: Journal, *, seed: int, seconds: float, only: Sequence[str] = (), again: bool = False
) -> None:
    """Run every case that has not passed yet."""
    await asyncio.to_thread(rig.add_account, _ACCOUNT, drain_seconds=2)
    await asyncio.to_thread(rig.disable_first_account)
    await all_workers_serve(rig)
    for number, case in enumerate(CASES):
        name = f"vault: {case.name}"
        if not all(word in case.name for word in only) or (journal.has_passed(name) and not again):
            continue
        findings, measured = await befall(rig, case, key=f"new-{seed}-{number}", seed=seed, seconds=seconds)
        journal.add(CAMPAIGN, name, findings, seed=seed, **measured)
        say(f"  {case.name}: {measured}")
        for finding in findings:
            say(f"      {finding}")


async def befall(
    rig: KeyRig, case: Case, *, key: str, seed: int, seconds: float
) -> tuple[list[Finding], Mapping[str, Any]]:
    """Let Vault get into a trouble under load; return what is wrong, and what was measured."""
    started_at = time.monotonic()
    secret = await asyncio.to_thread(issued_key, rig.simulator.url, project_of(_ACCOUNT), key)
    async with calls_on(rig, rate=RATE, seed=seed) as load:
        told, load.phase = Told(rig, load), HEALTHY
        await asyncio.sleep(_HEALTHY_SECONDS)
        load.phase = AWAY
        await _away(told, case, key, secret, seconds)
        load.phase, back_at = BACK, time.monotonic()
        await _back(told, key, secret, back_at)
    findings = load.findings() + told.findings + await _rotations_end(told, back_at) + await rig.verdict()
    return findings, {
        "calls": load.total,
        "calls_away": load.calls.get(AWAY, 0),
        "failed": len(load.failed),
        "cut_off_by_a_stopped_worker": load.cut_off,
        "slowest_seconds": round(load.slowest_seconds, 1),
        **told.measured,
        "seconds": round(time.monotonic() - started_at, 1),
    }


async def _away(told: Told, case: Case, key: str, secret: str, seconds: float) -> None:
    struck_at = time.monotonic()
    await case.strike(told.rig)
    going_on = asyncio.ensure_future((case.meanwhile or _nothing)(told.rig))
    if case.is_seen:
        await told.until("away_shown", _shown(told, up=False), seconds=_SEEN_WITHIN_SECONDS, since=struck_at)
        await _is_refused(told, key, secret)
    await asyncio.to_thread(_rotate, told.rig)
    if case.restarts_worker:
        await _restart_a_worker(told)
    await asyncio.sleep(max(0.0, struck_at + seconds - time.monotonic()))
    if case.is_seen and not case.restarts_worker and not await told.vault_is_shown(up=False):
        told.findings.append(Finding("not shown to the end", "Vault is away", str(await told.page("readyz"))))
    if case.meanwhile is not None:
        going_on.cancel()
        with suppress(asyncio.CancelledError):
            await going_on
    await case.mend(told.rig)


async def _back(told: Told, key: str, secret: str, back_at: float) -> None:
    """Bring a new key as soon as Vault takes it, and see when every worker has it."""

    async def is_taken() -> bool:
        return await asyncio.to_thread(_add_key, told.rig, key, secret) == ""

    async def is_used() -> bool:
        fingerprint = await told.rig.root.fetchval(
            "SELECT fingerprint FROM upstream_key WHERE account_id = $1 AND key_id = $2", _ACCOUNT, key
        )
        if fingerprint is None:
            return False
        return await told.rig.simulator.count_calls(key_id=fingerprint) > 0 and await told.all_keys_are_held()

    await told.until("new_key_taken", is_taken, seconds=BACK_WITHIN_SECONDS, since=back_at)
    await told.until("new_key_used", is_used, seconds=BACK_WITHIN_SECONDS, since=back_at)
    await told.until("back_shown", _shown(told, up=True), seconds=BACK_WITHIN_SECONDS, since=back_at)


async def _rotations_end(told: Told, back_at: float) -> list[Finding]:
    async def is_over() -> bool:
        return not await told.rig.root.fetchval("SELECT count(*) FROM key_rotation WHERE ended_at IS NULL")

    await told.until("rotation_ended", is_over, seconds=ROTATED_WITHIN_SECONDS, since=back_at)
    rows = await told.rig.root.fetch("SELECT * FROM key_rotation WHERE ended_at IS NULL OR outcome <> 'SUCCEEDED'")
    return [Finding("a rotation did not succeed", row["rotation_id"], row["error"]) for row in rows]


def _shown(told: Told, *, up: bool) -> Callable[[], Awaitable[bool]]:
    return lambda: told.vault_is_shown(up=up)


async def _is_refused(told: Told, key: str, secret: str) -> None:
    """A new key cannot be taken now, and whoever brings it is told why."""
    began_at = time.monotonic()
    reason = await asyncio.to_thread(_add_key, told.rig, key, secret)
    told.measured["refused_after_seconds"] = round(time.monotonic() - began_at, 1)
    if reason not in {"VAULT_UNAVAILABLE", "VAULT_DENIED"}:
        told.findings.append(Finding("a new key was not refused clearly", reason or "it was taken"))


async def _restart_a_worker(told: Told) -> None:
    """A worker that begins without Vault has no keys: it says so, tries again at a pace, and the others serve."""
    log_before = len(told.rig.gateway.output.read_text())
    worker = told.rig.children("worker")[0]
    told.load.worker_stops = True
    worker.terminate()
    await asyncio.to_thread(psutil.wait_procs, [worker], timeout=_STOP_SECONDS)
    await asyncio.sleep(_LOOK_SECONDS)
    told.load.worker_stops = False

    async def has_said_so() -> bool:
        said = told.rig.gateway.output.read_text()[log_before:]
        told.measured["starts_in_vain"] = said.count(_SAID)
        return said.count(_SAID) >= _STARTS_IN_VAIN

    await told.until("worker_said_so", has_said_so, seconds=_TRIES_SECONDS, since=time.monotonic())
    status, text = await told.page("readyz")
    told.measured["readyz_without_a_worker"] = f"{status} {text.strip()}"


def _rotate(rig: KeyRig) -> None:
    """Ask for a rotation of a key that has none yet."""
    metadata = bearer(rig.gateway.admin_api_key)
    with grpc.insecure_channel(rig.gateway.grpc) as channel:
        stub = keys_grpc.UpstreamKeyServiceStub(channel)
        request = keys.ListUpstreamKeysRequest(parent=f"accounts/{_ACCOUNT}", page_size=1000)
        listed = stub.ListUpstreamKeys(request, metadata=metadata)
        active = next(key for key in listed.upstream_keys if key.state == keys.UpstreamKey.STATE_ACTIVE)
        stub.RotateUpstreamKey(keys.RotateUpstreamKeyRequest(name=active.name), metadata=metadata)


def _add_key(rig: KeyRig, key: str, secret: str) -> str:
    """Add a key and return why not; empty when it was taken, now or before."""
    request = keys.AddUpstreamKeyRequest(parent=f"accounts/{_ACCOUNT}", upstream_key_id=key, secret=secret)
    try:
        with grpc.insecure_channel(rig.gateway.grpc) as channel:
            stub = keys_grpc.UpstreamKeyServiceStub(channel)
            stub.AddUpstreamKey(request, metadata=bearer(rig.gateway.admin_api_key), timeout=30)
    except grpc.RpcError as error:
        return "" if error.code() == grpc.StatusCode.ALREADY_EXISTS else reason_of(error)
    return ""
