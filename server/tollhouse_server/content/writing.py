"""Writes what waits to be kept: packed in a thread, sealed, some calls in one transaction."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from tollhouse_server.content.backlog import Backlog
from tollhouse_server.content.packing import packed
from tollhouse_server.content.store import add_contents
from tollhouse_server.content.tables import KeptContentRow
from tollhouse_server.content.terms import KeptCall, Part, context_of
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import KeyDestroyed, StoreUnavailable, TollhouseError
from tollhouse_server.telemetry.content_metrics import ContentMetrics
from tollhouse_server.vault.tenant_keys import TenantKeys

_PAUSE_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class ContentWriter:
    """Takes calls from the backlog until they are written. Nothing that was taken in is given up for an outage."""

    def __init__(self, database: Database, keys: TenantKeys, backlog: Backlog, metrics: ContentMetrics) -> None:
        self._database = database
        self._keys = keys
        self._backlog = backlog
        self._metrics = metrics

    async def run(self) -> None:
        """Write for ever; while PostgreSQL or Vault is away, what there is waits."""
        while True:
            batch = await self._backlog.take()
            left = list(batch)
            try:
                left = await self._write(batch)
            except StoreUnavailable as error:
                _log.warning("contents_wait", calls=len(self._backlog), detail=error.detail)
            finally:
                self._backlog.done([call for call in batch if call not in left])
                self._backlog.put_back(left)
                self._metrics.waiting(len(self._backlog))
            if left:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Wait until all is written; what is not after so many seconds, or when cut short, is lost, and counted."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._backlog.wait_until_empty()
        finally:
            if lost := len(self._backlog):
                _log.error("contents_lost", calls=lost)
                self._metrics.dropped(lost)

    async def _write(self, batch: Sequence[KeptCall]) -> list[KeptCall]:
        """Write what can be sealed and return what must wait for its key."""
        sizes = await asyncio.to_thread(_packed, batch)
        rows, waiting = [], []
        for call, parts in zip(batch, sizes, strict=True):
            try:
                rows.append(await self._sealed(call, parts))
            except KeyDestroyed as error:
                _log.error("content_dropped", reason=error.reason, tenant=error.tenant)
                self._metrics.dropped(1)
            except StoreUnavailable:
                raise
            except (TollhouseError, DBAPIError) as error:
                _log.warning("content_waits", reason=type(error).__name__)
                waiting.append(call)
        await self._insert(rows)
        return waiting

    async def _sealed(self, call: KeptCall, parts: "_Parts") -> KeptContentRow:
        tenant_id = call.caller.tenant_id

        async def seal(part: Part, content: bytes) -> bytes:
            return await self._keys.seal(tenant_id, content, context=context_of(tenant_id, call.attempt_id, part))

        prompt, answer = parts
        return KeptContentRow(
            tenant_id=tenant_id,
            attempt_id=call.attempt_id,
            created_at=call.settled_at,
            expires_at=call.settled_at + timedelta(days=call.retention_days),
            department_path=list(call.caller.department_path),
            project_id=call.caller.project_id,
            principal_id=call.caller.principal_id,
            request_id=call.request_id,
            method=call.method,
            model=call.model,
            prompt=await seal(Part.PROMPT, prompt[0]),
            prompt_bytes=prompt[1],
            answer=None if answer is None else await seal(Part.ANSWER, answer[0]),
            answer_bytes=0 if answer is None else answer[1],
            answer_truncated=call.answer_truncated,
        )

    async def _insert(self, rows: Sequence[KeptContentRow]) -> None:
        """Insert all, or, where the database does not take one of them, all the others."""
        if not rows:
            return
        try:
            async with self._database.transaction() as session:
                await add_contents(session, rows)
        except DBAPIError as error:
            if len(rows) > 1:
                for row in rows:
                    await self._insert([row])
                return
            _log.error("content_dropped", error=type(error.orig).__name__)
            self._metrics.dropped(1)
        else:
            self._metrics.kept(len(rows))


_Packed = tuple[bytes, int]
_Parts = tuple[_Packed, _Packed | None]


def _packed(calls: Sequence[KeptCall]) -> list[_Parts]:
    return [(packed(call.prompt), None if call.answer is None else packed(call.answer)) for call in calls]
