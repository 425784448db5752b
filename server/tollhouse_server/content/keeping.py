"""Keeps what policies want kept of calls: begun with a call, written behind its caller's back."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from tollhouse_server.content.backlog import Backlog
from tollhouse_server.content.terms import Caller, ContentPolicy, Keep, KeptCall
from tollhouse_server.errors import ContentNotKept, TollhouseError
from tollhouse_server.long_values import Json
from tollhouse_server.telemetry.content_metrics import ContentMetrics
from tollhouse_server.vault.tenant_keys import TenantKeys

MOST_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Of a longer answer the beginning is kept; its media still counts here."""

_PATIENCE_SECONDS: Final = 2.0
"""So long a call that must be kept waits for its tenant's key."""


class ContentKeeping:
    """Decides for each call whether it is kept, and takes in what there is of it."""

    def __init__(
        self,
        policies: Callable[[], Mapping[str, ContentPolicy]],
        keys: TenantKeys,
        backlog: Backlog,
        metrics: ContentMetrics,
    ) -> None:
        self._policies = policies
        self._keys = keys
        self._backlog = backlog
        self._metrics = metrics

    def keeps(self, tenant_id: str) -> bool:
        """Tell whether anything of a tenant's calls is kept; costs next to nothing."""
        return tenant_id in self._policies()

    async def begin(self, caller: Caller, /, *, request_id: UUID, method: str) -> "Recording | None":
        """Return where to put what there is of a call, None if it is not kept.

        Raises:
            ContentNotKept: it must be kept and could not be now.
        """
        policy = self._policies().get(caller.tenant_id)
        if policy is None or not policy.covers(caller):
            return None
        if policy.must_keep:
            await self._make_sure(caller.tenant_id)
        return Recording(self, policy, caller, request_id=request_id, method=method)

    def take(self, call: KeptCall, *, must_keep: bool) -> None:
        """Let a call wait to be written; one that need not be kept is dropped, and counted, where too much waits."""
        if self._backlog.is_full and not must_keep:
            self._metrics.dropped(1)
        else:
            self._backlog.add(call)

    async def _make_sure(self, tenant_id: str) -> None:
        cause = "too much waits to be written"
        if not self._backlog.is_full:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._keys.sealing_key(tenant_id)
            except TimeoutError:
                cause = "VAULT_UNAVAILABLE"
            except TollhouseError as error:
                cause = error.reason
            else:
                return
        self._metrics.refused()
        raise ContentNotKept(tenant=tenant_id, cause=cause)


class Recording:
    """What there is of one call so far. It is kept once it is settled and its caller has got all that he gets."""

    def __init__(
        self, keeping: ContentKeeping, policy: ContentPolicy, caller: Caller, *, request_id: UUID, method: str
    ) -> None:
        self._keeping = keeping
        self._policy = policy
        self._caller = caller
        self._request_id = request_id
        self._method = method
        self._is_stream = method.startswith("stream")
        self._pieces: list[Json] = []
        self._answer_bytes = 0
        self._is_truncated = False
        self._is_closed = False
        self._settled: tuple[UUID, str, datetime, Json] | None = None

    @property
    def wants_answer(self) -> bool:
        """Tell whether answers are to be added."""
        return self._policy.keep is Keep.PROMPTS_AND_ANSWERS

    def add(self, piece: Json) -> None:
        """Add what its caller was just given: the answer, or a chunk of it, as JSON."""
        if self._is_truncated or self._answer_bytes + len(piece) > MOST_ANSWER_BYTES:
            self._is_truncated = True
            return
        self._pieces.append(piece)
        self._answer_bytes += len(piece)

    def settled(self, *, attempt_id: UUID, model: str, settled_at: datetime, prompt: Json) -> None:
        """Note that the call is booked, under which id, and what was sent."""
        self._settled = (attempt_id, model, settled_at, prompt)
        if self._is_closed:
            self._keep()

    def close(self, *, is_whole: bool) -> None:
        """Note that its caller gets nothing more; `is_whole` tells whether he has got all."""
        self._is_truncated = self._is_truncated or (self.wants_answer and not is_whole)
        self._is_closed = True
        if self._settled is not None:
            self._keep()

    def _keep(self) -> None:
        if self._settled is None:
            return
        attempt_id, model, settled_at, prompt = self._settled
        call = KeptCall(
            caller=self._caller,
            attempt_id=attempt_id,
            request_id=self._request_id,
            method=self._method,
            model=model,
            settled_at=settled_at,
            retention_days=self._policy.retention_days,
            prompt=prompt,
            answer=self._answer(),
            answer_truncated=self._is_truncated,
        )
        self._keeping.take(call, must_keep=self._policy.must_keep)

    def _answer(self) -> Json | None:
        if not self.wants_answer or not self._pieces:
            return None
        return b"[" + b",".join(map(bytes, self._pieces)) + b"]" if self._is_stream else self._pieces[0]
