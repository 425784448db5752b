"""Proves that the ledger adds up: on request, and every night by one housekeeper for all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.engine import Database, store_errors
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.ledger import verification_store as store
from tollhouse_server.ledger.verification_store import Check, Extent, Finding, Reach, Snapshot
from tollhouse_server.ledger.windows import midnight, month_after
from tollhouse_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from tollhouse_server.ledger.connections import Pool
    from tollhouse_server.ledger.store import Connection

_log = structlog.get_logger(__name__)

_MOST_FINDINGS: Final = 100
"""Findings that one check of one tenant lists: what is broken once is broken often."""

_ALWAYS = (datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))


class RollupCheck(Protocol):
    """Yields the roll-ups of a reach that are not the sums of their records; reports know how these are made."""

    def __call__(self, session: AsyncSession, reach: Reach, /) -> AsyncIterator[Finding]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a verification is: a step is one check of one tenant."""

    tenant: str
    check: Check
    done_steps: int
    total_steps: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a verification ended; `truncated` when a check found more than it listed."""

    snapshot_at: datetime
    tenants: int
    extent: Extent
    unchecked_counters: int
    findings: int
    truncated: bool


VerificationEvent: TypeAlias = Progress | Finding | Verdict


@dataclass(slots=True)
class _Tally:
    """What a verification has seen so far."""

    extent: Extent = field(default_factory=Extent)
    steps: int = 0
    findings: int = 0
    unchecked: int = 0
    truncated: bool = False

    def add(self, seen: Extent) -> None:
        names = [one.name for one in fields(Extent)]
        self.extent = Extent(**{name: getattr(self.extent, name) + getattr(seen, name) for name in names})


class LedgerVerification:
    """Verifies one after the other: each takes a connection and a snapshot for as long as it runs."""

    def __init__(self, database: Database, rollups: RollupCheck) -> None:
        self._database = database
        self._rollups = rollups
        self._turn = asyncio.Lock()

    async def verify(self, *, tenant: str | None = None, month: str = "") -> AsyncIterator[VerificationEvent]:
        """Yield what does not add up and how far it is, and at last the verdict.

        Without a tenant all are verified, also those that only rows of the ledger know. `month`, as `YYYY-MM`, is
        that of each tenant's own calendar.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._turn)
            session = await stack.enter_async_context(self._database.transaction())
            snapshot = await store.begin_snapshot(session)
            reaches = [reach_of(one, zone, month, snapshot) for one, zone in snapshot.tenants if tenant in (None, one)]
            tally = _Tally()
            for reach in reaches:
                tally.add(await store.extent(session, reach))
                for check in Check:
                    for finding in await self._findings(session, check, reach, tally):
                        yield finding
                    tally.steps += 1
                    yield Progress(
                        tenant=reach.tenant,
                        check=check,
                        done_steps=tally.steps,
                        total_steps=len(reaches) * len(Check),
                        records=tally.extent.records,
                    )
        yield Verdict(
            snapshot_at=snapshot.now,
            tenants=len(reaches),
            extent=tally.extent,
            unchecked_counters=tally.unchecked,
            findings=tally.findings,
            truncated=tally.truncated,
        )

    async def _findings(self, session: AsyncSession, check: Check, reach: Reach, tally: _Tally) -> list[Finding]:
        match check:
            case Check.COUNTERS:
                found, unchecked = await store.counter_findings(session, reach, most=_MOST_FINDINGS + 1)
                tally.unchecked += unchecked
            case Check.ROLLUPS:
                found = await self._rollup_findings(session, reach)
            case _:
                found = await store.findings(session, check, reach, most=_MOST_FINDINGS + 1)
        tally.truncated |= len(found) > _MOST_FINDINGS
        tally.findings += len(found[:_MOST_FINDINGS])
        return found[:_MOST_FINDINGS]

    async def _rollup_findings(self, session: AsyncSession, reach: Reach) -> list[Finding]:
        found: list[Finding] = []
        async for finding in self._rollups(session, reach):
            found.append(finding)
            if len(found) > _MOST_FINDINGS:
                break
        return found


def reach_of(tenant: str, time_zone: str, month: str, snapshot: Snapshot) -> Reach:
    """Return what of a tenant is verified: a month of his calendar, or all."""
    since, until = _ALWAYS
    if month:
        first, zone = date.fromisoformat(f"{month}-01"), ZoneInfo(time_zone)
        since, until = midnight(first, zone), midnight(month_after(first), zone)
    return Reach(tenant=tenant, since=since, until=until, kept_since=snapshot.kept_since)


# --- every night ------------------------------------------------------------------------------------------------------

_NIGHT_HOUR: Final = 2
_FIRST_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 60.0


class NightlyVerification:
    """Verifies the whole ledger soon after it has become leader and then each night at two (UTC)."""

    def __init__(self, pool: "Pool", verification: LedgerVerification, metrics: Metrics) -> None:
        self._pool = pool
        self._verification = verification
        self._metrics = metrics

    async def run(self) -> None:
        """Verify for ever, or wait until whoever does is gone."""
        while True:
            try:
                with store_errors():
                    await self._lead()
            except StoreUnavailable as error:
                _log.warning("verification_postponed", detail=error.detail)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _lead(self) -> None:
        async with store.leadership(self._pool) as leader:
            if leader is None:
                return
            seconds = _FIRST_SECONDS
            while True:
                await self._wait(leader, seconds)
                await self.verify()
                seconds = seconds_until_night(datetime.now(UTC))

    async def _wait(self, leader: "Connection", seconds: float) -> None:
        """Wait, and make sure meanwhile that nobody else could have become leader."""
        ends_at = asyncio.get_running_loop().time() + seconds
        while (left := ends_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, _LOOK_SECONDS))
            await store.confirm_leadership(leader)

    async def verify(self) -> Verdict | None:
        """Verify everything; tell of findings by metric and log. None when the database could not do it.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        verdict = None
        try:
            async for event in self._verification.verify():
                if isinstance(event, Finding):
                    _log.error(
                        "ledger_does_not_add_up", **{one.name: getattr(event, one.name) for one in fields(event)}
                    )
                elif isinstance(event, Verdict):
                    verdict = event
        except DBAPIError as error:
            # Out of disk or memory: the last success grows old, which raises the alert. The other chores must go on.
            _log.error("verification_failed", error_type=type(error.orig).__name__)
        if verdict is not None:
            self._metrics.ledger_verified(findings=verdict.findings, at_seconds=verdict.snapshot_at.timestamp())
            _log.info("ledger_verified", findings=verdict.findings, records=verdict.extent.records)
        return verdict


def seconds_until_night(now: datetime) -> float:
    """Return how long it is from the aware moment `now` to the next two o'clock (UTC)."""
    tonight = now.astimezone(UTC).replace(hour=_NIGHT_HOUR, minute=0, second=0, microsecond=0)
    upcoming = tonight if tonight > now else tonight + timedelta(days=1)
    return (upcoming - now).total_seconds()
