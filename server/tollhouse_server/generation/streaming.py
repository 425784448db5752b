"""The story of one streaming call: as `generate.py`, with the chunks passed on as they come.

The call runs apart from its RPC and reads the stream to its end even if nobody listens any more: only the last chunk
tells what the call has used, and what is paid for must be known exactly.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tollhouse_server.generation.attempts import response_id_of
from tollhouse_server.generation.bills import bill_of_stream
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.generation.detached import DetachedCalls
from tollhouse_server.generation.generate import Generation, Served, Trial
from tollhouse_server.pricing.usage import StreamUsage
from tollhouse_server.upstream.protocol import Broken

_CHUNKS_AHEAD = 64
"""Chunks kept for a slow reader before the upstream is made to wait for him."""


class ChunkPipe:
    """Carries chunks from a call to its RPC. When the listener has gone it swallows what still comes."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(_CHUNKS_AHEAD)
        self._has_listener = True

    async def put(self, chunk: Mapping[str, Any] | None) -> None:
        """Pass a chunk on, or None for the end; waits while a slow listener is too far behind."""
        if self._has_listener:
            await self._queue.put(chunk)

    def abandon(self) -> None:
        """Stop listening: whoever waits to put goes on at once."""
        self._has_listener = False
        while not self._queue.empty():
            self._queue.get_nowait()

    def cut(self) -> None:
        """End the chunks at once, without those that nobody has taken yet: a shutdown waits for no listener."""
        self.abandon()
        self._queue.put_nowait(None)

    async def chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield chunks until the end."""
        while (chunk := await self._queue.get()) is not None:
            yield chunk


class Streaming:
    """Serves streaming calls."""

    def __init__(self, generation: Generation, calls: DetachedCalls) -> None:
        self._generation = generation
        self._calls = calls

    async def stream(self, call: GenerationCall) -> AsyncIterator[Mapping[str, Any] | Answer]:
        """Yield Gemini's chunks as they come and, when the call is booked, one Answer with an empty body.

        Raises:
            TollhouseError: as `Generation.generate`; UpstreamOutcomeUnknown also after the first chunk, when the
                stream breaks: it is never silently restarted.
        """
        pipe = ChunkPipe()
        finished = self._calls.start(self._run(call, pipe))
        try:
            async for chunk in pipe.chunks():
                yield chunk
            yield await asyncio.shield(finished)
        finally:
            pipe.abandon()

    async def _run(self, call: GenerationCall, pipe: ChunkPipe) -> Answer:
        try:
            return await self._generation.serve(call, partial(self._pass_on, pipe=pipe))
        except asyncio.CancelledError:
            pipe.cut()
            raise
        finally:
            await pipe.put(None)

    async def _pass_on(self, trial: Trial, *, pipe: ChunkPipe) -> Served:
        """Pass every chunk on and return what the stream came to.

        Raises:
            Broken: the stream ended without saying that it is finished, or with an error in its midst.
        """
        meter, progress, sent_at = StreamUsage(), StreamProgress(), time.perf_counter()
        async with aclosing(self._generation.upstream.stream(trial.upstream_call)) as chunks:
            async for chunk in chunks:
                if "error" in chunk:
                    raise Broken("the stream carried an error")
                if not progress.chunks:
                    self._generation.note_first_chunk(trial, seconds=time.perf_counter() - sent_at)
                progress.add(chunk)
                meter.add(chunk)
                await pipe.put(chunk)
        if not progress.is_finished:
            raise Broken("the stream ended before the answer did")
        bill = bill_of_stream(trial.stage.stop, meter)
        return Served(body={}, response_id=progress.response_id, bill=bill)


@dataclass(slots=True)
class StreamProgress:
    """How far a stream has come. It is finished when each candidate seen is, or when the prompt was blocked."""

    chunks: int = 0
    response_id: str = ""
    _seen: set[int] = field(default_factory=set)
    _finished: set[int] = field(default_factory=set)
    _is_blocked: bool = False

    @property
    def is_finished(self) -> bool:
        """Tell whether Gemini has said that the answer is complete."""
        return self._is_blocked or (bool(self._seen) and self._seen == self._finished)

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take one chunk into account."""
        self.chunks += 1
        self.response_id = response_id_of(chunk) or self.response_id
        for candidate in _objects(chunk.get("candidates")):
            index = candidate.get("index", 0)
            self._seen.add(index)
            if candidate.get("finishReason"):
                self._finished.add(index)
        feedback = chunk.get("promptFeedback")
        self._is_blocked = self._is_blocked or (isinstance(feedback, Mapping) and bool(feedback.get("blockReason")))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
