"""What is kept of a call, for tenants that want it: what was sent, and what its caller was answered."""

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self
from uuid import UUID

from tollhouse_server.generation.calls import GenerationCall
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.ledger.terms import Scope
from tollhouse_server.long_values import Json
from tollhouse_server.upstream.protocol import Method

_KEPT: Final = frozenset({Method.GENERATE, Method.STREAM, Method.EMBED})
"""Counting tokens says nothing that the call which follows does not say; it is never kept."""


class CallRecording(Protocol):
    """Takes in what there is of one call. Nothing here waits or fails."""

    @property
    def wants_answer(self) -> bool: ...

    def add(self, piece: Json) -> None: ...

    def settled(self, *, attempt_id: UUID, model: str, settled_at: datetime, prompt: Json) -> None: ...

    def close(self, *, is_whole: bool) -> None: ...


class Keeper(Protocol):
    """Knows what each tenant wants kept."""

    def keeps(self, tenant_id: str) -> bool:
        """Tell whether anything of a tenant's calls is kept; costs next to nothing."""

    async def begin(self, scope: Scope, /, *, request_id: UUID, method: str) -> CallRecording | None:
        """Return where to put what there is of a call, None if it is not kept.

        Raises:
            ContentNotKept: it must be kept and could not be now.
        """


class Record:
    """One call's recording, or none: whoever writes to it need not know. Leaving the block says the caller has all."""

    __slots__ = ("_recording", "_wants_answer")

    def __init__(self, recording: CallRecording | None, *, is_answer_text: bool = True) -> None:
        self._recording = recording
        self._wants_answer = recording is not None and is_answer_text and recording.wants_answer

    def answer(self, body: Mapping[str, Any]) -> None:
        """Note what the caller is given now, without the values of his prompt: the whole answer, or the next chunk."""
        if self._wants_answer and self._recording is not None:
            self._recording.add(encoded(body))

    def settled(self, *, attempt_id: UUID, model: str, settled_at: datetime, prompt: Json) -> None:
        """Note that the call is booked, and what was sent."""
        if self._recording is not None:
            self._recording.settled(attempt_id=attempt_id, model=model, settled_at=settled_at, prompt=prompt)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recording is not None:
            self._recording.close(is_whole=kind is None)


NOT_KEPT: Final = Record(None)


async def record_of(keeper: Keeper | None, call: GenerationCall) -> Record:
    """Return the record of a call that is about to be planned, as it may be sent.

    Raises:
        ContentNotKept: it must be kept and could not be now.
    """
    if keeper is None or not keeper.keeps(call.scope.tenant_id) or call.method not in _KEPT:
        return NOT_KEPT
    recording = await keeper.begin(call.scope, request_id=call.request_id, method=call.method)
    # An embedding is nothing that anybody reads.
    return Record(recording, is_answer_text=call.method is not Method.EMBED)
