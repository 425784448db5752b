"""The story of one call: route, price the worst case, reserve, send, settle, answer.

Every upstream attempt is its own ledger row. An attempt that is known to have cost nothing may be followed by one at
the next target; an attempt whose outcome is unknown ends the call, because sending it again could charge it twice.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from tollhouse_server.errors import DeadlineTooShort, NoUpstreamKey, TollhouseError, UpstreamOutcomeUnknown
from tollhouse_server.generation.attempts import Attempt, Attempts, response_id_of
from tollhouse_server.generation.bills import Bill, bill_of
from tollhouse_server.generation.calls import Answer, CallNotice, GenerationCall, Outcome, RouteTaken
from tollhouse_server.generation.keys import KeyChooser
from tollhouse_server.generation.plans import Planner, Stop, destination_of
from tollhouse_server.generation.refusals import may_go_elsewhere, refusal_of
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.upstream.protocol import Broken, NotSent, Refused, Upstream, UpstreamCall
from tollhouse_server.vault.secret_text import SecretText

_ANSWER_SECONDS = 0.1
"""What an answer may need to its caller: after his deadline he hears nothing but that it has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stop of a call's way with the key to be used there. Attempts are numbered from 1, stops placed from 1."""

    number: int
    place: int
    stop: Stop
    key: SecretText


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One attempt at one stage, in flight."""

    stage: Stage
    attempt: Attempt
    upstream_call: UpstreamCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What an attempt brought. `body` is empty where the chunks were passed on already.

    `cut_off` says why a stream was ended before it was finished; what it used is booked all the same.
    """

    body: dict[str, Any]
    response_id: str
    bill: Bill
    cut_off: TollhouseError | None = None


class Generation:
    """Serves calls. Each coroutine here runs to its end whatever becomes of its RPC (`DetachedCalls`)."""

    def __init__(
        self,
        *,
        planner: Planner,
        attempts: Attempts,
        keys: KeyChooser,
        upstream: Upstream,
        metrics: Metrics,
        max_attempts: int,
        upstream_timeout_seconds: float,
        settle_grace_seconds: float,
    ) -> None:
        self._planner = planner
        self._attempts = attempts
        self._keys = keys
        self.upstream = upstream
        self._metrics = metrics
        self._max_attempts = max_attempts
        self._upstream_timeout_seconds = upstream_timeout_seconds
        self._settle_grace_seconds = settle_grace_seconds

    async def generate(self, call: GenerationCall) -> Answer:
        """Serve one unary call, from the request to the receipt.

        It is answered when its booking is durable. A caller whose deadline passes before that hears DEADLINE_EXCEEDED,
        as of any call that may have been served; where nothing was sent, he hears so a little before his deadline.

        Raises:
            LimitExceeded, DuplicateRequest, RequestIdReused: refused before anything was sent.
            UpstreamRefused, UpstreamExhausted, UpstreamUnavailable: no target served it; nothing was charged.
            UpstreamOutcomeUnknown: it may have been served; it is in suspense.
        """
        return await self.serve(call, self._exchange)

    async def serve(self, call: GenerationCall, exchange: Callable[[Trial], Awaitable[Served]]) -> Answer:
        """Try one target after the other until `exchange` brings an answer; each trial is booked before the next.

        Raises:
            TollhouseError: as `generate`.
        """
        failures: list[NotSent | Refused] = []
        for stage in self._stages(call):
            try:
                async with self._trial(call, stage) as trial:
                    served = await exchange(trial)
                    _note_served(trial.attempt, served)
                outcome = self._outcome(call, trial, served.bill)
                if served.cut_off is not None:
                    raise served.cut_off
                return Answer(body=served.body, outcome=outcome)
            except (NotSent, Refused) as error:
                failures.append(error)
                if not may_go_elsewhere(error) or call.deadline <= time.monotonic():
                    break
        raise refusal_of(failures)

    async def _exchange(self, trial: Trial) -> Served:
        body = await self.upstream.call(trial.upstream_call)
        method, attempt = trial.upstream_call.method, trial.attempt
        bill = bill_of(
            method, trial.stage.stop, body, held_nanos=attempt.held_nanos, suspense_nanos=attempt.suspense_nanos
        )
        return Served(body=body, response_id=response_id_of(body), bill=bill)

    def _stages(self, call: GenerationCall) -> Iterator[Stage]:
        """Yield at most `max_attempts` stops that we hold a key for; without any the call is refused, nothing held.

        Raises:
            NoUpstreamKey: there is none.
            ModelUnknown, ModelShutDown, ModelUnpriced: see `Planner.stops`.
        """
        number, keyless = 0, None
        for place, stop in enumerate(self._planner.stops(call), start=1):
            key = self._keys.pick(stop.target.account_id)
            if key is None:
                keyless = stop
                continue
            number += 1
            yield Stage(number=number, place=place, stop=stop, key=key)
            if number == self._max_attempts:
                return
        if number == 0:
            raise NoUpstreamKey(model=keyless.target.model if keyless else call.model or call.tier or "")

    @asynccontextmanager
    async def _trial(self, call: GenerationCall, stage: Stage) -> AsyncIterator[Trial]:
        """Reserve, and book how the attempt ended when the block is left; measure it on the way.

        Raises:
            DeadlineTooShort: the caller's time is up; nothing is held.
            UpstreamOutcomeUnknown: the block raised Broken.
        """
        seconds_left = call.deadline - time.monotonic()
        if seconds_left <= 0:
            raise DeadlineTooShort
        terms = stage.stop.terms(call, is_first=stage.number == 1)
        started_at = time.perf_counter()
        attempt = None
        try:
            async with self._attempts.open(terms, timeout_seconds=_verdict_seconds(seconds_left)) as attempt:
                granted = _granted(stage, attempt)
                yield Trial(stage=granted, attempt=attempt, upstream_call=self._upstream_call(call, granted, attempt))
        except Broken as error:
            raise UpstreamOutcomeUnknown(attempt_id=str(terms.attempt_id), last_error=str(error)) from error
        finally:
            if attempt is not None and attempt.settlement is not None:
                self._metrics.upstream_attempt_finished(
                    target=stage.stop.target.kind,
                    model=stage.stop.target.model,
                    outcome=attempt.settlement.outcome.split(":")[0],
                    seconds=time.perf_counter() - started_at,
                )

    def _upstream_call(self, call: GenerationCall, stage: Stage, attempt: Attempt) -> UpstreamCall:
        # Past the caller's deadline we go on listening for a while: what is paid for should be known exactly.
        patience_seconds = call.deadline - time.monotonic() + self._settle_grace_seconds
        return UpstreamCall(
            attempt_id=attempt.attempt_id,
            destination=destination_of(stage.stop.target),
            method=call.method,
            body=stage.stop.body,
            timeout_seconds=min(self._upstream_timeout_seconds, patience_seconds),
            key=stage.key.reveal(),
        )

    def note_first_chunk(self, trial: Trial, *, seconds: float) -> None:
        """Tell the metrics how long a stream's first chunk took."""
        target = trial.stage.stop.target
        self._metrics.upstream_first_chunk(target=target.kind, model=target.model, seconds=seconds)

    def _outcome(self, call: GenerationCall, trial: Trial, bill: Bill) -> Outcome:
        stop = trial.stage.stop
        if bill.priced.cost_nanos > trial.attempt.held_nanos:
            self._metrics.settled_above_hold(model=stop.target.model)
        self._metrics.call_settled(
            tier=stop.tier, model=stop.target.model, usage=bill.usage, cost_nanos=bill.priced.cost_nanos
        )
        return Outcome(
            attempt_id=trial.attempt.attempt_id,
            request_id=call.request_id,
            scope=call.scope,
            route=RouteTaken(
                tier=stop.tier,
                model=stop.target.model,
                target=stop.target.kind,
                account_id=stop.target.account_id,
                attempts=trial.stage.number,
            ),
            usage=bill.usage,
            priced=bill.priced,
            settled_at=trial.attempt.settled_at or trial.attempt.reservation.dispatched_at,
            notices=(*stop.notices, *bill.notices, *_fallback_notice(trial)),
        )


def _verdict_seconds(seconds_left: float) -> float:
    """Return how long to wait for the ledger's verdict, so that the caller hears of its silence before his deadline."""
    return seconds_left - min(_ANSWER_SECONDS, seconds_left / 4)


def _note_served(attempt: Attempt, served: Served) -> None:
    """Note how a served attempt is to be booked: at its usage, or in suspense where the answer reports none."""
    if served.bill.usage is None:
        attempt.unknown("USAGE_MISSING")
    else:
        outcome = "SERVED" if served.cut_off is None else "CUT_OFF"
        attempt.served(served.bill.usage, served.bill.priced, served.response_id, outcome=outcome)


def _granted(stage: Stage, attempt: Attempt) -> Stage:
    """Return the stage as the ledger has admitted it: with less output, where a limit has no room for all of it."""
    reservation = attempt.reservation
    if reservation.max_output_tokens is None:
        return stage
    clamped = stage.stop.clamped(reservation.max_output_tokens, limit=reservation.clamped_by)
    return replace(stage, stop=clamped)


def _fallback_notice(trial: Trial) -> tuple[CallNotice, ...]:
    stage = trial.stage
    if stage.place == 1:
        return ()
    message = f"The call was served by target {stage.place} of its route."
    return (CallNotice(code="FALLBACK_USED", message=message, metadata={"attempts": str(stage.number)}),)
