"""A stream that is held for in steps: more is held while it comes, and it ends before it could pass what is held.

docs/decisions/0012 says what this promises and what not.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from tollhouse_server.errors import BudgetCutOff, LimitExceeded, StoreLostMidStream, StoreUnavailable, TollhouseError
from tollhouse_server.generation.attempts import Attempt
from tollhouse_server.generation.bills import Bill
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.generation.plans import Stop, amounts_of
from tollhouse_server.ledger.terms import Metric
from tollhouse_server.pricing.ceiling import Ceiling

_MARGIN_OF_STEP = 4
"""The margin, which is for what may be under way unseen, is a step divided by this, at the least."""

_MARGIN_CHUNKS = 2
"""The margin has room for this many chunks of the largest size seen."""

_ASKS_OF_STEP = 8
"""How often a stream that was refused asks again while it uses up a step."""

_PATIENCE_SECONDS = 0.05
"""How long a stream at its margin waits for a verdict: some ticks. What comes meanwhile is not read."""

_TOP_UP_SECONDS = 10.0
"""How long a top-up waits for the ledger before it is asked for anew."""

_COUNTS = ("candidatesTokenCount", "thoughtsTokenCount")


class OutputSeen:
    """An upper bound of the output tokens that have come: as reported, what was not reported by its bytes."""

    def __init__(self) -> None:
        self._reported = 0
        self._unreported_bytes = 0

    @property
    def tokens(self) -> int:
        """Return the bound."""
        return self._reported + self._unreported_bytes

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take a chunk into account. Counts are those so far; one that is lower than an earlier one is not believed."""
        self._unreported_bytes += _written_bytes(chunk)
        metadata = chunk.get("usageMetadata")
        if not isinstance(metadata, Mapping):
            return
        counts = [count for name in _COUNTS if type(count := metadata.get(name)) is int]
        if counts and sum(counts) >= self._reported:
            self._reported, self._unreported_bytes = sum(counts), 0


class SteppedHold:
    """What one stream holds. It tops up early, and says when the stream must end."""

    def __init__(
        self, attempt: Attempt, stop: Stop, start: "Callable[[Coroutine[Any, Any, None]], asyncio.Future[None]]"
    ) -> None:
        self._attempt = attempt
        self._full = stop.ceiling
        self._step = stop.step_tokens
        self._least = amounts_of(stop.opening.with_output(stop.least_output_tokens) or stop.opening)
        self._began_at = time.monotonic()
        self._start = start
        self._seen = OutputSeen()
        self._largest = 0
        self._room_when_asked = 0
        self._asked: asyncio.Future[None] | None = None
        self._obstacle: LimitExceeded | StoreUnavailable | None = None

    @property
    def held_tokens(self) -> int:
        """Return how many output tokens are held."""
        return self._attempt.reservation.terms.ceiling.output_tokens

    @property
    def is_whole(self) -> bool:
        """Tell whether all that the call may use is held."""
        return self.held_tokens >= self._full.output_tokens

    @property
    def is_store_lost(self) -> bool:
        """Tell whether it is the ledger's silence, not a limit, that keeps the stream from going on."""
        return not isinstance(self._obstacle, LimitExceeded)

    @property
    def used_tokens(self) -> int:
        """Return the most output tokens that a stream which is cut now can have used.

        That is what is held; where more came than the margin is for, what came and half a margin for what is under way.
        """
        return max(self.held_tokens, self._seen.tokens + self._margin() // 2)

    @property
    def bound_tokens(self) -> int:
        """Return the most output tokens that the upstream was allowed to write, whoever watched it."""
        return max(self._full.output_tokens, self.used_tokens)

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take a chunk into account."""
        before = self._seen.tokens
        self._seen.add(chunk)
        self._largest = max(self._largest, self._seen.tokens - before)

    async def may_go_on(self) -> bool:
        """Top up if it is time to; return False when the stream must end."""
        self._hear()
        if self._room() < self._step and self._may_ask():
            self._ask(self._next())
        return self.has_room or await self._is_granted_late()

    async def secure_all(self) -> bool:
        """Hold all that the call may still use, so that it may come unread; return False where that has no room."""
        await self._await_verdict()
        if self._obstacle is None:
            self._ask(self._full)
            await self._await_verdict()
        return self.is_whole

    def cut_off(self, bill: Bill) -> TollhouseError:
        """Return what the caller is told of a stream that was ended for want of room; `bill` is what is booked."""
        attempt_id = str(self._attempt.attempt_id)
        if not isinstance(self._obstacle, LimitExceeded):
            return StoreLostMidStream(attempt_id=attempt_id, output_tokens=self._seen.tokens)
        return BudgetCutOff(
            **asdict(self._obstacle) | {"retry_after_seconds": self._retry_after_seconds(self._obstacle)},
            attempt_id=attempt_id,
            input_tokens=bill.usage.input_tokens if bill.usage else 0,
            output_tokens=self._seen.tokens,
            cost_nanos=bill.priced.cost_nanos,
        )

    def _retry_after_seconds(self, refusal: LimitExceeded) -> float | None:
        """Return when a repetition can be admitted: its limit counted what this stream holds, which is used up."""
        metric, terms = Metric(refusal.metric), self._attempt.reservation.terms
        left = refusal.amount - refusal.settled - terms.ceiling.of(metric)
        if left >= self._least.of(metric):
            return refusal.retry_after_seconds
        if refusal.resets_at is None:
            return None
        # The database's clock, as of the reservation.
        now = self._attempt.reservation.dispatched_at + timedelta(seconds=time.monotonic() - self._began_at)
        return max(0.0, (refusal.resets_at - now).total_seconds())

    def _room(self) -> int:
        return self.held_tokens - self._seen.tokens

    def _margin(self) -> int:
        return max(-(-self._step // _MARGIN_OF_STEP), _MARGIN_CHUNKS * self._largest)

    @property
    def has_room(self) -> bool:
        """Tell whether what is held has room for what may be under way."""
        return self.is_whole or self._room() >= self._margin()

    async def _is_granted_late(self) -> bool:
        """Wait a little for the verdict, and ask a last time."""
        await self._await_verdict()
        if self._asked is None and not self.has_room:
            self._ask(self._next())
            await self._await_verdict()
        return self.has_room

    def _may_ask(self) -> bool:
        """Tell whether to ask on the way: after a refusal now and then, for others may have settled meanwhile."""
        return self._obstacle is None or self._room() <= self._room_when_asked - self._step // _ASKS_OF_STEP

    def _ask(self, wanted: Ceiling) -> None:
        if self._asked is None and not self.is_whole:
            self._room_when_asked = self._room()
            more = amounts_of(wanted).minus(self._attempt.reservation.terms.ceiling)
            self._asked = self._start(self._attempt.top_up(more, timeout_seconds=_TOP_UP_SECONDS))

    def _next(self) -> Ceiling:
        """Return the ceiling that leaves a step of room beyond the margin, at least a step more than is held.

        Where a whole step was refused, the last of a budget is asked for in small ones.
        """
        step = self._step if self._obstacle is None else -(-self._step // _MARGIN_OF_STEP)
        lacking = max(step, step + self._margin() - self._room())
        bound = -(-(self.held_tokens + lacking) // self._full.candidates)
        return self._full.with_output(min(bound, self._full.max_output_tokens)) or self._full

    async def _await_verdict(self) -> None:
        if self._asked is not None:
            await asyncio.wait([self._asked], timeout=_PATIENCE_SECONDS)
            self._hear()

    def _hear(self) -> None:
        """Take note of a verdict that has come."""
        if self._asked is None or not self._asked.done():
            return
        verdict, self._asked = self._asked, None
        try:
            verdict.result()
        except (LimitExceeded, StoreUnavailable) as error:
            self._obstacle = error
        else:
            self._obstacle = None


def _written_bytes(chunk: Mapping[str, Any]) -> int:
    """Return the size of what a chunk says, signatures left out: a byte-level tokenizer makes no more tokens of it."""
    return sum(
        len(encoded({name: value for name, value in part.items() if name != "thoughtSignature"}))
        for candidate in _objects(chunk.get("candidates"))
        for content in _objects([candidate.get("content")])
        for part in _objects(content.get("parts"))
    )


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
