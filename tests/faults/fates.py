"""What became of calls whose callers were told that the database, or their time, was gone: by evidence, not by guess.

A call that was not admitted in time must hear UNAVAILABLE, and then it was never sent. A call that was served is
answered when its booking is durable, not before: where that is after its deadline, its caller hears DEADLINE_EXCEEDED,
for UNAVAILABLE would say that nothing has happened. The simulator's log says what was served and when, the ledger what
was booked; somebody who looks at it all along says when.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from tollhouse_server.embedded.postgres_roles import ROOT
from tollhouse_server.simulator.client import ServedCall

from tests.drivers.referee import Finding
from tests.faults.rig import Rig
from tests.faults.traffic import Code, Refusal

_LOOK_EVERY_SECONDS = 0.05
_RECONNECT_SECONDS = 0.5
_ANSWER_SECONDS = 0.25
"""What an answer may need to its caller once its booking is durable."""

_SEEN = "SELECT request_id::text FROM usage_record WHERE settled_at >= $1"
_RECORDS = """
SELECT request_id::text, attempt_id::text, outcome FROM usage_record
WHERE request_id = ANY ($1::text[]::uuid[]) AND kind <> 'ADJUSTMENT'
"""

NOT_SENT, SERVED, CUT = "not sent", "served", "cut in its midst"


@dataclass(frozen=True, slots=True)
class Fate:
    """A refused call, what the simulator has of it, and since when, at the latest, its booking was durable."""

    call: Refusal
    served: ServedCall | None
    is_cut: bool
    booked_at: float | None

    @property
    def name(self) -> str:
        """Return what became of it."""
        return CUT if self.is_cut else NOT_SENT if self.served is None else SERVED

    def wrongs(self) -> Iterable[str]:
        """Yield the rules that are broken by what the caller was told."""
        if self.call.code is Code.UNAVAILABLE:
            if self.call.reason != "STORE_UNAVAILABLE":
                yield "UNAVAILABLE for another reason"
            if self.name == SERVED:
                yield "served, and told that nothing was sent"
        elif self.name == NOT_SENT:
            yield "not admitted, and told nothing in time"
        if self.served is not None and self.served.served_at_ms / 1000 > self.call.ends_at:
            yield "sent when its caller's time was up"
        if self.booked_at is not None and self.served is not None and not self.is_cut:
            spare_seconds = self.call.ends_at - self.booked_at
            if spare_seconds > _ANSWER_SECONDS:
                yield "served and booked in time, and not answered"


async def judge(
    rig: Rig, refusals: Iterable[Refusal], bookings: dict[str, float]
) -> tuple[list[Finding], dict[str, int]]:
    """Return what is wrong, and how many calls came to what. To be called when all is booked."""
    fates = await _fates(rig, list(refusals), bookings)
    findings = [
        Finding(rule, f"{one.call.seconds:.0f} s: {one.call.code.name}", f"{one.call.request_id} {one.name}")
        for one in fates
        for rule in one.wrongs()
    ]
    counts = Counter(f"{one.call.seconds:.0f} s: {one.call.code.name}, {one.name}" for one in fates)
    return findings, dict(sorted(counts.items()))


async def _fates(rig: Rig, refusals: list[Refusal], bookings: dict[str, float]) -> list[Fate]:
    rows = await rig.root.fetch(_RECORDS, [one.request_id for one in refusals])
    served = {call.attempt_id: call for row in rows for call in await rig.simulator.calls(attempt_id=row["attempt_id"])}
    # A call has one attempt that can be served, and others that were refused.
    of_call = {row["request_id"]: row for row in sorted(rows, key=lambda row: row["attempt_id"] in served)}
    return [
        Fate(
            call=one,
            served=served.get(row["attempt_id"]) if row else None,
            is_cut=bool(row and row["outcome"] == "CUT_OFF"),
            booked_at=bookings.get(one.request_id),
        )
        for one in refusals
        for row in [of_call.get(one.request_id)]
    ]


@asynccontextmanager
async def watched_bookings(rig: Rig) -> AsyncIterator[dict[str, float]]:
    """Note when the booking of each request id is first seen while the block runs: since then, or before, it stands."""
    seen: dict[str, float] = {}
    since = await rig.root.fetchval("SELECT clock_timestamp()")
    watcher = asyncio.create_task(_watch(rig, since, seen))
    try:
        yield seen
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])
        if not watcher.cancelled():
            watcher.result()


# The last of them is the driver's state after the server has cut it off in the middle of a message.
_GONE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def _watch(rig: Rig, since: datetime, seen: dict[str, float]) -> None:
    """Look through outages of the database: nothing is committed meanwhile."""
    while True:
        with suppress(*_GONE):
            connection = await asyncpg.connect(rig.parts.endpoints[0].dsn(ROOT), timeout=5)
            try:
                while True:
                    rows = await connection.fetch(_SEEN, since)
                    now = time.time()
                    for row in rows:
                        seen.setdefault(row["request_id"], now)
                    await asyncio.sleep(_LOOK_EVERY_SECONDS)
            finally:
                connection.terminate()
        await asyncio.sleep(_RECONNECT_SECONDS)
