"""What the housekeeper does for upstream keys: starts rotations that are due, carries them through, warns."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.audit.store import record
from tollhouse_server.custody import policy_store
from tollhouse_server.custody import rotation_store as store
from tollhouse_server.custody.key_use import UnusualUse
from tollhouse_server.custody.providers.protocol import KeyOrder, KeyProvider
from tollhouse_server.custody.rotations import Rotations
from tollhouse_server.custody.tables import KeyRotationRow
from tollhouse_server.custody.terms import DEFAULT_POLICY, Cause, KeyState, Kind, ProviderKind, Step
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import RotationUnderWay, StoreUnavailable, TollhouseError
from tollhouse_server.routing import account_store
from tollhouse_server.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_LANES: Final = 3
_PAUSE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 60.0
_SWEEP_SECONDS: Final = 3600.0


class Custody:
    """The housekeeper's part. Several housekeepers share the rotations; one at a time looks for what is due."""

    def __init__(
        self,
        database: Database,
        rotations: Rotations,
        unusual: UnusualUse,
        metrics: Metrics,
        providers: Mapping[ProviderKind, KeyProvider],
    ) -> None:
        self._database = database
        self._rotations = rotations
        self._unusual = unusual
        self._metrics = metrics
        self._providers = providers

    async def run(self) -> None:
        """Do it for ever; outages only postpone it."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(_LANES):
                lanes.create_task(self._carry_through())
            lanes.create_task(self._look())

    async def _carry_through(self) -> None:
        while True:
            if not await self._tried("rotations", self._rotations.advance):
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _look(self) -> None:
        swept_at = time.monotonic()
        while True:
            await self._tried("keys that are due", self.start_due)
            await self._tried("unusual use", self._unusual.look)
            await self._tried("gauges", self.measure)
            if time.monotonic() - swept_at > _SWEEP_SECONDS:
                await self._tried("stray keys", self.sweep)
                swept_at = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tried(self, chore: str, work: Callable[[], Awaitable[int | None]]) -> int | None:
        try:
            return await work()
        except StoreUnavailable as error:
            _log.warning("chore_postponed", chore=chore, detail=error.detail)
        except DBAPIError as error:
            _log.error("chore_failed", chore=chore, error=type(error.orig).__name__)
        return None

    async def start_due(self) -> int:
        """Start a rotation of each active key that is too old for its policy; return how many were started.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        started = 0
        async with self._database.transaction() as session:
            if not await store.lead(session):
                return 0
            due = await store.due_keys(session, default_days=DEFAULT_POLICY.rotation_period.days)
        for account_id, key_id in due:
            started += await self._start(account_id, key_id)
        return started

    async def _start(self, account_id: str, key_id: str) -> bool:
        try:
            async with self._database.transaction() as session:
                key = await store.find_key(session, account_id, key_id, lock=True)
                if key is None or key.state != KeyState.ACTIVE:
                    return False
                row = await store.start(
                    session,
                    key,
                    kind=Kind.ROTATION,
                    cause=Cause.POLICY,
                    actor=store.HOUSEKEEPER,
                    policy=await policy_store.policy_of(session, account_id),
                    today=datetime.now(UTC).date(),
                )
                await record(session, store.start_event(row))
        except RotationUnderWay:
            # Somebody asked for it a moment ago.
            return False
        _log.info("rotation_started", rotation=row.rotation_id, account=account_id, upstream_key=key_id)
        return True

    async def sweep(self) -> int:
        """Retire keys at their providers that a process issued after its rotation had ended; return how many.

        A process that stood still for longer than its lease can have done that; nothing refers to such a key.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        async with self._database.transaction() as session:
            accounts = await account_store.list_accounts(session)
            policies = {one.account_id: await policy_store.policy_of(session, one.account_id) for one in accounts}
            ended = {one.account_id: await store.ended_new_keys(session, one.account_id) for one in accounts}
        retired = 0
        for account in accounts:
            order = KeyOrder(
                account_id=account.account_id, project=account.project, key_id="", old_key_id="", old_version=0
            )
            provider = self._providers.get(policies[account.account_id].provider)
            if provider is None:
                continue
            try:
                for name in await provider.strays(order, ended=ended[account.account_id]):
                    await provider.retire(order, provider_key=name, secret=None)
                    _log.warning("stray_key_retired", account=account.account_id, provider_key=name)
                    retired += 1
            except TollhouseError as error:
                _log.warning("stray_keys_not_looked_for", account=account.account_id, error=str(error))
        return retired

    async def measure(self) -> None:
        """Tell the metrics what is under way and what is late.

        Raises:
            StoreUnavailable: PostgreSQL is gone.
        """
        async with self._database.transaction() as session:
            accounts = await account_store.list_accounts(session)
            rows = await store.open_rotations(session)
            overdue = await store.count_overdue(session, default_days=DEFAULT_POLICY.rotation_period.days)
        for account in accounts:
            self._metrics.key_promotions_begin(account=account.account_id)
        for step in Step:
            ages = [_age_seconds(row) for row in rows if row.step == step]
            self._metrics.key_rotations(step=step.value, count=len(ages), oldest_seconds=max(ages, default=0.0))
        failing = sum(1 for row in rows if row.error and not store.waits_for_person(row))
        self._metrics.key_rotation_troubles(failing=failing, overdue=overdue)


def _age_seconds(row: KeyRotationRow) -> float:
    return (datetime.now(UTC) - row.step_at).total_seconds() if row.step_at else 0.0
