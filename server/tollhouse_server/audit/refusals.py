"""What was refused, on its way to the trail: no act's transaction carries it, so it is written behind the call's back.

A flood must not fill the disk, and must not be able to hide: like refusals are counted in one event, an event at the
latest every second; a process writes so many in a burst and so many a second for ever, and more than that wait and are
counted on. Only when too many different ones wait, or the process dies, are details lost; how many, is counted too.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from tollhouse_server.audit.personal import PersonalData, Source
from tollhouse_server.audit.store import record_all
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.database.engine import Database
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.names import PLATFORM
from tollhouse_server.telemetry.metrics import Metrics

MOST_WAITING: Final = 1000
"""Different refusals that wait at a time; of further ones only the count is kept, by kind."""

BURST: Final = 200
EVENTS_PER_SECOND: Final = 2.0
"""What a process may write in events of refusals: 170,000 a day, some 200 MB, whatever is done to it."""

_WRITE_SECONDS: Final = 1.0

DETAILS_DROPPED: Final = "DETAILS_DROPPED"
"""Reason of an event that stands for refusals of which nothing but their number was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A call that was refused, and in whose trail that belongs."""

    kind: str
    tenant_id: str
    actor: str
    credential_id: str
    method: str
    permission: str
    resource: str
    reason: str
    correlation_id: str
    source: Source


@dataclass(slots=True)
class _Counted:
    """Like refusals: the first of them, since when, and how many."""

    first: Refusal
    started_at: datetime
    count: int = 0


_Key = tuple[str, str, str, str, str]


class RefusalLog:
    """Takes refusals in without waiting, and writes them when it can."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        personal: PersonalData | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._personal = personal
        self._clock = clock
        self._waiting: dict[_Key, _Counted] = {}
        self._allowance = float(BURST)
        self._allowed_at = clock()

    @property
    def waiting(self) -> int:
        """How many events wait to be written."""
        return len(self._waiting)

    def note(self, refusal: Refusal) -> None:
        """Take one refusal in. Never waits, never raises, and its memory is bounded."""
        who = refusal.actor or refusal.source.address
        key = (refusal.kind, refusal.tenant_id, who, refusal.method, refusal.reason)
        details = "kept"
        if key not in self._waiting and len(self._waiting) >= MOST_WAITING:
            refusal, key, details = (
                _without_details(refusal),
                (refusal.kind, PLATFORM, "", "", DETAILS_DROPPED),
                "dropped",
            )
        counted = self._waiting.setdefault(key, _Counted(refusal, datetime.now(UTC)))
        counted.count += 1
        self._metrics.audit_refusals(count=1, details=details)

    async def run(self) -> None:
        """Write for ever; while the database is away, go on counting."""
        await in_rounds(self.write, "refusals", pause_seconds=_WRITE_SECONDS)

    async def write(self) -> int:
        """Write as many events as the allowance has, those that wait longest; return how many.

        Raises:
            StoreUnavailable: PostgreSQL is gone; they wait on.
        """
        taken = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._allowed()]}
        if not taken:
            return 0
        try:
            # The heads of trails are locked in the order of the events; by tenant, so that two writers cannot cross.
            events = await self._events([taken[key] for key in sorted(taken, key=lambda key: key[1])])
            async with self._database.within(PLATFORM) as session:
                await record_all(session, events)
        except BaseException:
            self._put_back(taken)
            raise
        self._allowance -= len(taken)
        return len(taken)

    def _allowed(self) -> int:
        now = self._clock()
        self._allowance = min(float(BURST), self._allowance + (now - self._allowed_at) * EVENTS_PER_SECOND)
        self._allowed_at = now
        return int(self._allowance)

    def _put_back(self, taken: dict[_Key, _Counted]) -> None:
        for key, counted in taken.items():
            since = self._waiting.get(key)
            counted.count += since.count if since else 0
        self._waiting = {**taken, **{key: one for key, one in self._waiting.items() if key not in taken}}

    async def _events(self, taken: Sequence[_Counted]) -> list[AuditEventRow]:
        """Return what is to be written; keys are asked for at once, not one tenant's after the other's."""
        events = [_event(counted) for counted in taken]
        if self._personal is None:
            return events
        found = await asyncio.gather(*map(self._personal.sealer, {event.tenant_id for event in events}))
        sealers = {sealer.tenant: sealer for sealer in found}
        for event, counted in zip(events, taken, strict=True):
            sealers[event.tenant_id].protect(event, counted.first.source)
        return events


def _event(counted: _Counted) -> AuditEventRow:
    refusal = counted.first
    return AuditEventRow(
        tenant_id=refusal.tenant_id,
        kind=refusal.kind,
        outcome="FAILURE",
        reason=refusal.reason,
        count=counted.count,
        started_at=counted.started_at,
        actor=refusal.actor,
        credential_id=refusal.credential_id,
        method=refusal.method,
        permission=refusal.permission,
        resource=refusal.resource,
        before=None,
        after=None,
        request_id="",
        correlation_id=refusal.correlation_id,
    )


def _without_details(refusal: Refusal) -> Refusal:
    return replace(
        refusal,
        tenant_id=PLATFORM,
        actor="",
        credential_id="",
        method="",
        permission="",
        resource="",
        reason=DETAILS_DROPPED,
        correlation_id="",
        source=Source(),
    )
