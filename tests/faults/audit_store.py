"""PostgreSQL stopped, killed and on a full disk during administrative acts: none completes without its audit event.

The disk is full for real: PostgreSQL's directory is a small file system in memory, filled with ballast again and again,
so that it cannot write its log, cannot extend its tables, and sometimes cannot even recover.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import asyncpg
import grpc
import psutil
from tollhouse.admin.v1 import audit_pb2, audit_pb2_grpc, departments_pb2, departments_pb2_grpc
from tollhouse_server.embedded.errors import EmbeddedStartFailed
from tollhouse_server.embedded.postgres_roles import ROOT

from tests.drivers.callers import bearer
from tests.drivers.deployment import Deployment, Parts, running_deployment, running_parts
from tests.drivers.postgres import complete
from tests.drivers.referee import Finding
from tests.faults.journal import Journal
from tests.faults.report import say
from tests.faults.rig import parts_directory

CAMPAIGN = "audit-store"
_DISK_BYTES = 700 * 1024 * 1024
_CALLERS = 8
_DEADLINE_SECONDS = 5.0
_LONGEST_SECONDS = 1800.0
_SETTLE_SECONDS = 60.0
_PARENT = "tenants/demo"

_MADE = "SELECT department_id FROM department WHERE tenant_id = 'demo' AND department_id LIKE $1"
_AUDITED = """
SELECT split_part(resource, '/', 4) AS id, count(*) AS events FROM audit_event
WHERE tenant_id = 'demo' AND method LIKE '%.CreateDepartment' AND resource LIKE $1 AND sequence IS NOT NULL GROUP BY 1
"""


@dataclass(slots=True)
class Acts:
    """Administrative acts by several callers, and what each of them was told."""

    deployment: Deployment
    prefix: str
    wanted: int
    answered: set[str] = field(default_factory=set)
    told: Counter[str] = field(default_factory=Counter)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def done(self) -> bool:
        """Whether all acts were tried."""
        return sum(self.told.values()) >= self.wanted

    def run(self) -> None:
        """Act until there are as many acts as are wanted."""
        with grpc.insecure_channel(self.deployment.gateway.grpc) as channel:
            stub = departments_pb2_grpc.DepartmentServiceStub(channel)
            while (name := self._take()) is not None:
                request = departments_pb2.CreateDepartmentRequest(
                    parent=_PARENT, department_id=name, request_id=str(uuid4())
                )
                try:
                    stub.CreateDepartment(
                        request, metadata=bearer(self.deployment.gateway.admin_api_key), timeout=_DEADLINE_SECONDS
                    )
                    outcome = "OK"
                except grpc.RpcError as error:
                    outcome = error.code().name
                with self._lock:
                    self.told[outcome] += 1
                    if outcome == "OK":
                        self.answered.add(name)
                if outcome != "OK":
                    time.sleep(0.5)

    def _take(self) -> str | None:
        with self._lock:
            if self._next >= self.wanted:
                return None
            self._next += 1
            return f"{self.prefix}-{self._next}"


Trouble = Callable[[Parts, Acts], None]


def stopped(parts: Parts, acts: Acts) -> None:
    """It is shut down in the midst of acts, and started again, again and again."""
    while not acts.done:
        time.sleep(3.0)
        parts.stop_postgres()
        time.sleep(0.5)
        parts.start_postgres()


def killed(parts: Parts, acts: Acts) -> None:
    """One of its processes dies by kill -9, or all of them."""
    number = 0
    while not acts.done:
        time.sleep(3.0)
        number += 1
        child = parts.postgres.child
        assert child is not None
        with suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(child.pid)
            victims = postmaster.children(recursive=True)
            for victim in (*victims, postmaster) if number % 3 == 0 else victims[-1:]:
                victim.send_signal(signal.SIGKILL)
        _revive(parts)


def full(parts: Parts, acts: Acts) -> None:
    """The last byte of its disk is taken for two seconds, again and again; then there is room."""
    ballast = _disk(parts) / "ballast"
    while not acts.done:
        time.sleep(1.0)
        _fill(ballast)
        time.sleep(2.0)
        ballast.unlink()
        _revive(parts)


TROUBLES: tuple[Trouble, ...] = (stopped, killed, full)
_PROOFS = {
    "stopped": "received fast shutdown request",
    "killed": "was terminated by signal 9",
    "full": "No space left on device",
}


def _fill(ballast: Path) -> None:
    """Take every block that is free."""
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        with suppress(OSError):
            while True:
                file.write(bytes(4096))


def _revive(parts: Parts) -> None:
    """Start it again where it has ended, as whoever runs it would; it may first have to recover."""
    child = parts.postgres.child
    if child is not None and child.exit_code() is None:
        return
    for _ in range(5):
        try:
            complete(parts.postgres.start())
        except EmbeddedStartFailed:
            time.sleep(1)
        else:
            return


def _disk(parts: Parts) -> Path:
    return parts.directory / "postgres"


@contextmanager
def _small_disk(directory: Path) -> Iterator[None]:
    """Mount a file system in memory where PostgreSQL will have its data."""
    place = directory / "postgres"
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=0700", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def run(journal: Journal, *, acts: int, only: Sequence[str] = (), again: bool = False) -> None:
    """Let each trouble befall PostgreSQL during so many acts. Not asynchronous: who starts PostgreSQL must live on."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        say("  skipped: a full disk takes the right to mount one")
        return
    with parts_directory() as directory, _small_disk(directory), running_parts(directory) as parts:
        with running_deployment(parts) as deployment:
            for trouble in TROUBLES:
                name = trouble.__name__
                if not all(word in name for word in only) or (journal.has_passed(f"audit {name}") and not again):
                    continue
                _befall(deployment, trouble, acts, journal)
        journal.path.with_suffix(".audit-store.log").write_text(deployment.gateway.output.read_text())


def _befall(deployment: Deployment, trouble: Trouble, wanted: int, journal: Journal) -> None:
    name, started_at = trouble.__name__, time.monotonic()
    acts = Acts(deployment, prefix=f"{name}-{uuid4().hex[:6]}", wanted=wanted)
    log = deployment.parts.directory / "postgres.log"
    before = log.read_text(errors="replace").count(_PROOFS[name])
    callers = [threading.Thread(target=acts.run) for _ in range(_CALLERS)]
    for caller in callers:
        caller.start()
    trouble(deployment.parts, acts)
    for caller in callers:
        caller.join(_LONGEST_SECONDS)
    _revive(deployment.parts)
    strikes = log.read_text(errors="replace").count(_PROOFS[name]) - before
    findings = _judge(deployment, acts)
    if not strikes or len(acts.told) < 2:
        findings.append(Finding("the test has shown nothing", name, f"{strikes} strikes, told {dict(acts.told)}"))
    seconds = round(time.monotonic() - started_at, 1)
    journal.add(
        CAMPAIGN, f"audit {name}", findings, acts=wanted, told=dict(acts.told), strikes=strikes, seconds=seconds
    )
    say(f"  {name}: {wanted} acts in {seconds} s, {strikes} strikes, told {dict(acts.told)}: {len(findings)} findings")
    for finding in findings[:10]:
        say(f"      {finding}")


def _judge(deployment: Deployment, acts: Acts) -> list[Finding]:
    """Compare what callers were told, what is there, and what is on the trail; and walk the trail."""
    made, audited = complete(_read(deployment.parts, acts.prefix))
    findings = [Finding("answered, and not there", name) for name in acts.answered - made]
    findings += [Finding("there without its audit event", name) for name in made - audited.keys()]
    findings += [Finding("audited, and not there", name) for name in audited.keys() - made]
    findings += [Finding("audited twice", name) for name, events in audited.items() if events != 1]
    return findings + _verified(deployment)


async def _read(parts: Parts, prefix: str) -> tuple[set[str], dict[str, int]]:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        try:
            connection = await asyncpg.connect(parts.endpoints[0].dsn(ROOT), timeout=5)
            break
        except (OSError, asyncpg.PostgresError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
    try:
        made = {row["department_id"] for row in await connection.fetch(_MADE, f"{prefix}-%")}
        audited = await connection.fetch(_AUDITED, f"%/departments/{prefix}-%")
        return made, {row["id"]: row["events"] for row in audited}
    finally:
        await connection.close()


def _verified(deployment: Deployment) -> list[Finding]:
    """Have the server compare the trail with its links, its checkpoints and the anchor."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    with grpc.insecure_channel(deployment.gateway.grpc) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        while True:
            try:
                answers = stub.VerifyAuditTrail(
                    audit_pb2.VerifyAuditTrailRequest(parent=_PARENT),
                    metadata=bearer(deployment.gateway.admin_api_key),
                    timeout=120,
                )
                found = [one for answer in answers for one in answer.findings]
                return [Finding("the trail is broken", f"event {one.sequence}", one.problem) for one in found]
            except grpc.RpcError as error:
                if time.monotonic() > deadline:
                    code: grpc.StatusCode = error.code()
                    return [Finding("the trail cannot be verified", code.name)]
                time.sleep(1)
