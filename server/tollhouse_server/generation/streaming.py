"""The story of one streaming call: as `generate.py`, with the chunks passed on as they come.

The call runs apart from its RPC and reads the stream to its end even if nobody listens any more: only the last chunk
tells what the call has used, and what is paid for must be known exactly. Only a limit without room for the next step
of a stream that is held for in steps ends it before.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from tollhouse_server.errors import TollhouseError
from tollhouse_server.generation.attempts import response_id_of
from tollhouse_server.generation.bills import Bill, bill_of_cut_stream, bill_of_stream
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.generation.generate import Generation
from tollhouse_server.generation.guard import admitted
from tollhouse_server.generation.keeping import record_of
from tollhouse_server.generation.noting import finish_reasons_of, model_version_of
from tollhouse_server.generation.steps import SteppedHold
from tollhouse_server.generation.trials import Served, Trial
from tollhouse_server.generation.way import BrokenMidStream, Way
from tollhouse_server.pricing.usage import StreamUsage
from tollhouse_server.traffic.places import Place
from tollhouse_server.upstream.protocol import Broken

_LOOKS = 5
_LOOK_SECONDS = 0.004
"""So often, and so long each time, a stream that is cut must bring nothing before it is closed. Several looks: the
first one after a standstill is over, by the clock, before the sockets are read."""

_STANDSTILL_SECONDS = 0.5
"""Nobody has watched a stream for which that time passed in one look, or from the last look to the closing."""

_LONGEST_LAST_LOOK_SECONDS = 0.25
"""What waits in this machine's buffers is read in less; what still comes then is being written now, and costs."""

_CHUNKS_AHEAD = 64
"""Chunks kept for a slow reader before the upstream is made to wait for him."""


Item: TypeAlias = Mapping[str, Any] | TollhouseError | None
"""What goes through a pipe: a chunk, an error that the listener is to be told now, or None for the end."""


class ChunkPipe:
    """Carries chunks from a call to its RPC. When the listener has gone it swallows what still comes.

    One call puts and one RPC takes, so a future does what asyncio.Queue has for many of both.
    """

    def __init__(self) -> None:
        # Lists are short here as a rule; a deque or an event takes 0.7 kB from the first, of each stream that is open.
        self._items: list[Item] = []
        self._listening: asyncio.Future[None] | None = None
        self._waiting_for_room: asyncio.Future[None] | None = None
        self._has_listener = True

    @property
    def is_full(self) -> bool:
        """Tell whether a slow listener is so far behind that the upstream should wait for him."""
        return len(self._items) >= _CHUNKS_AHEAD and self._has_listener

    async def has_room(self) -> None:
        """Wait while a slow listener is too far behind."""
        while self.is_full:
            self._waiting_for_room = asyncio.get_running_loop().create_future()
            await self._waiting_for_room

    def put(self, item: Item) -> None:
        """Pass something on; never waits."""
        if self._has_listener:
            self._items.append(item)
            _resume(self._listening)

    def abandon(self) -> None:
        """Stop listening: whoever waits for room goes on at once."""
        self._has_listener = False
        self._items.clear()
        _resume(self._waiting_for_room)

    def cut(self) -> None:
        """End the chunks at once, without those that nobody has taken yet: a shutdown waits for no listener."""
        self.abandon()
        self._items.append(None)
        _resume(self._listening)

    async def chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield chunks until the end.

        Raises:
            TollhouseError: one was put among them.
        """
        items = self._items
        while True:
            while not items:
                self._listening = asyncio.get_running_loop().create_future()
                await self._listening
            item = items.pop(0)
            _resume(self._waiting_for_room)
            if item is None:
                return
            if isinstance(item, TollhouseError):
                raise item
            yield item


def _resume(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


class Streaming:
    """Serves streaming calls."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._calls = generation.calls

    async def stream(self, call: GenerationCall) -> AsyncIterator[Mapping[str, Any] | Answer]:
        """Yield Gemini's chunks as they come and, when the call is booked, one Answer with an empty body.

        Raises:
            TollhouseError: as `Generation.generate`; UpstreamOutcomeUnknown also after the first chunk, when the
                stream breaks: it is never silently restarted.
            BudgetCutOff, StoreLostMidStream: after the first chunk, when no more can be held for it.
            ContentNotKept: as `Generation.generate`.
            DataPolicyBlocked: nothing was sent; or after any chunk, and the call is read and booked to its end.
        """
        call, answers = await admitted(self._generation.guard, call)
        with await record_of(self._generation.keeper, call) as record:
            way, place = await self._generation.set_out(call, record)
            pipe = ChunkPipe()
            finished = self._calls.start(self._run(way, place, pipe))
            try:
                chunks = pipe.chunks() if answers is None else answers.stream(pipe.chunks(), keep=record.answer)
                async for chunk in chunks:
                    if answers is None:
                        record.answer(chunk)
                    yield chunk
                yield await asyncio.shield(finished)
            finally:
                pipe.abandon()

    async def _run(self, way: Way, place: Place, pipe: ChunkPipe) -> Answer:
        try:
            return await self._generation.serve(way, place, partial(self._pass_on, pipe=pipe))
        except asyncio.CancelledError:
            pipe.cut()
            raise
        finally:
            pipe.put(None)

    async def _pass_on(self, trial: Trial, *, pipe: ChunkPipe) -> Served:
        """Pass every chunk on and return what the stream came to.

        Raises:
            Broken: the stream ended without saying that it is finished, or with an error in its midst; BrokenMidStream
                where something was passed on already.
        """
        stop = trial.stage.stop
        steps = SteppedHold(trial.attempt, stop, self._calls.start) if stop.step_tokens else None
        passage = Passage(pipe, steps)
        try:
            is_cut = await self._drive(trial, passage, steps)
            if steps and is_cut and not passage.progress.is_finished:
                return passage.cut(trial, steps)
            if not passage.progress.is_finished:
                raise Broken("the stream ended before the answer did")
        except Broken as failure:
            if passage.progress.chunks:
                raise BrokenMidStream(str(failure)) from failure
            raise
        return passage.bring(trial)

    async def _drive(self, trial: Trial, passage: "Passage", steps: SteppedHold | None) -> bool:
        """Take chunks until the stream ends, or must; return whether it had to."""
        sent_at = time.perf_counter()
        async with aclosing(self._generation.upstream.stream(trial.upstream_call)) as chunks:
            async for chunk in chunks:
                if not passage.progress.chunks:
                    self._generation.note_first_chunk(trial, seconds=time.perf_counter() - sent_at)
                await passage.take(chunk)
                if steps and not passage.progress.is_finished and not await steps.may_go_on():
                    await passage.take_what_has_come(chunks)
                    return True
        return False


class Passage:
    """One stream on its way to its listener, and what it comes to."""

    def __init__(self, pipe: ChunkPipe, steps: SteppedHold | None) -> None:
        self._pipe = pipe
        self._steps = steps
        self._looked_at = time.monotonic()
        self.meter = StreamUsage()
        self.progress = StreamProgress()

    async def take(self, chunk: Mapping[str, Any]) -> None:
        """Count a chunk and pass it on.

        The upstream is made to wait for a slow listener only where all that may come unread is held.

        Raises:
            Broken: it is an error.
        """
        self._count(chunk)
        pipe, steps = self._pipe, self._steps
        if pipe.is_full and (steps is None or steps.is_whole or await steps.secure_all()):
            await pipe.has_room()
        pipe.put(chunk)

    async def take_what_has_come(self, chunks: AsyncIterator[Mapping[str, Any]]) -> None:
        """Take the chunks that are here already, and end their stream: the more is seen, the less is guessed.

        Raises:
            Broken: as `take`.
        """
        looks, until = 0, time.monotonic() + _LONGEST_LAST_LOOK_SECONDS
        coming = asyncio.ensure_future(anext(chunks, None))
        try:
            while looks < _LOOKS and time.monotonic() < until:
                self._looked_at = time.monotonic()
                await asyncio.wait([coming], timeout=_LOOK_SECONDS)
                if self._stood_still:
                    until = time.monotonic() + _LONGEST_LAST_LOOK_SECONDS
                if not coming.done():
                    looks += not self._stood_still
                    continue
                if (chunk := coming.result()) is None:
                    break
                self._count(chunk)
                self._pipe.put(chunk)
                coming = asyncio.ensure_future(anext(chunks, None))
        finally:
            coming.cancel()
            await asyncio.wait([coming])
            if not coming.cancelled():
                # It ended in this very moment; asyncio must not complain that nobody looked.
                coming.exception()

    @property
    def _stood_still(self) -> bool:
        """Tell whether so long has passed since the last look that much may have come unseen."""
        return time.monotonic() - self._looked_at > _STANDSTILL_SECONDS

    def _count(self, chunk: Mapping[str, Any]) -> None:
        if "error" in chunk:
            raise Broken("the stream carried an error")
        self.progress.add(chunk)
        self.meter.add(chunk)
        if self._steps is not None:
            self._steps.add(chunk)

    def bring(self, trial: Trial) -> Served:
        """Return what a stream came to that is finished."""
        return self._served(bill_of_stream(trial.stage.stop, self.meter, trial.attempt))

    def cut(self, trial: Trial, steps: SteppedHold) -> Served:
        """Return what a stream came to that was ended for want of room; to be asked as soon as it is closed."""
        used_tokens = steps.bound_tokens if self._stood_still else steps.used_tokens
        bill = bill_of_cut_stream(trial.stage.stop, self.meter, trial.attempt, used_tokens=used_tokens)
        told = steps.cut_off(bill)
        if steps.is_store_lost:
            # The booking waits for the ledger, as long as it takes; the listener need not.
            self._pipe.put(told)
        return self._served(bill, cut_off=told)

    def _served(self, bill: Bill, *, cut_off: TollhouseError | None = None) -> Served:
        progress = self.progress
        return Served(
            body={},
            response_id=progress.response_id,
            bill=bill,
            cut_off=cut_off,
            model_version=progress.model_version,
            finish_reasons=progress.finish_reasons,
        )


@dataclass(slots=True)
class StreamProgress:
    """How far a stream has come. It is finished when each candidate seen is, or when the prompt was blocked."""

    chunks: int = 0
    response_id: str = ""
    model_version: str = ""
    finish_reasons: tuple[str, ...] = ()
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
        self.model_version = model_version_of(chunk) or self.model_version
        candidates = chunk.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict):
                self._add_candidate(candidate)
        if feedback := chunk.get("promptFeedback"):
            self._is_blocked = self._is_blocked or (isinstance(feedback, dict) and bool(feedback.get("blockReason")))

    def _add_candidate(self, candidate: Mapping[str, Any]) -> None:
        index = candidate.get("index")
        index = index if type(index) is int else 0
        self._seen.add(index)
        if candidate.get("finishReason") and index not in self._finished:
            self.finish_reasons += finish_reasons_of([candidate])
            self._finished.add(index)
