"""The story of one call: plan, take a place, reserve, send, settle, answer.

Every upstream attempt is its own ledger row. An attempt that is known to have cost nothing may be followed by one at
the next target. One whose outcome is unknown is in suspense; where its caller lets it be sent anew, another attempt
follows it all the same, with a hold of its own, and the caller is told of both.
"""

import time
from collections.abc import Awaitable, Callable

from tollhouse_server.errors import DeadlineTooShort, TollhouseError
from tollhouse_server.generation.attempts import Attempt, Attempts, response_id_of
from tollhouse_server.generation.bills import Bill, bill_of
from tollhouse_server.generation.calls import Answer, CallNotice, GenerationCall, Outcome, RouteTaken
from tollhouse_server.generation.departures import Departures
from tollhouse_server.generation.detached import DetachedCalls
from tollhouse_server.generation.guard import ContentGuard, admitted
from tollhouse_server.generation.keeping import NOT_KEPT, Keeper, Record, record_of
from tollhouse_server.generation.long_calls import LongCalls
from tollhouse_server.generation.noting import (
    finish_reasons_of,
    model_version_of,
    note_answer,
    note_call,
    upstream_step,
)
from tollhouse_server.generation.patience import PAUSE_SECONDS
from tollhouse_server.generation.plans import Planner, Stop
from tollhouse_server.generation.trials import Served, Stage, Trial
from tollhouse_server.generation.way import Way
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.long_values import LONG_BYTES
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.steps import note, step
from tollhouse_server.traffic.places import Place
from tollhouse_server.upstream.protocol import Broken, NotSent, Refused, Upstream, UpstreamCall

_ANSWER_SECONDS = 0.1
"""What an answer may need to its caller: after his deadline he hears nothing but that it has passed."""


class Generation:
    """Serves calls. Once a call has its first place it runs to its end, whatever becomes of its RPC."""

    def __init__(
        self,
        *,
        planner: Planner,
        departures: Departures,
        attempts: Attempts,
        upstream: Upstream,
        calls: DetachedCalls,
        metrics: Metrics,
        max_attempts: int,
        upstream_timeout_seconds: float,
        settle_grace_seconds: float,
        guard: ContentGuard | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._planner = planner
        self._departures = departures
        self._attempts = attempts
        self.upstream = upstream
        self.calls = calls
        self._metrics = metrics
        self._max_attempts = max_attempts
        self._upstream_timeout_seconds = upstream_timeout_seconds
        self._settle_grace_seconds = settle_grace_seconds
        self.guard = guard
        self.keeper = keeper
        self._long_calls = LongCalls()

    async def generate(self, call: GenerationCall) -> Answer:
        """Serve one unary call, from the request to the receipt.

        It is answered when its booking is durable. A caller whose deadline passes before that hears DEADLINE_EXCEEDED,
        as of any call that may have been served; where nothing was sent, he hears so a little before his deadline.

        Raises:
            LimitExceeded, DuplicateRequest, RequestIdReused: refused before anything was sent.
            Overloaded, TargetsUnhealthy: nothing could be sent in time.
            UpstreamRefused, UpstreamExhausted, UpstreamUnavailable: no target served it; nothing was charged.
            UpstreamOutcomeUnknown: it may have been served; it is in suspense.
            DataPolicyBlocked: the prompt was not sent; or the answer, which is booked, is kept from its caller.
            ContentNotKept: the tenant wants every call kept, and this one could not be; nothing was sent.
        """
        call, answers = await admitted(self.guard, call)
        with await record_of(self.keeper, call) as record:
            way, place = await self.set_out(call, record)
            answer = await self.calls.start(self.serve(way, place, self._exchange))
            if answers is not None:
                return Answer(await answers.whole(answer.body, keep=record.answer), answer.outcome)
            record.answer(answer.body)
            return answer

    async def set_out(self, call: GenerationCall, record: Record = NOT_KEPT) -> tuple[Way, Place]:
        """Plan a call, and wait for its first place. Nothing is held yet: a caller who hangs up ends it here.

        Raises:
            TollhouseError: as `generate`, of what comes before the ledger.
        """
        note_call(call)
        if call.size_bytes > LONG_BYTES:
            call = await self._long_calls.prepared(call)
        with step("route"):
            way = Way(call, self._planner.plan(call), record)
        return way, await self._departures.first(way)

    async def serve(self, way: Way, place: Place, exchange: Callable[[Trial], Awaitable[Served]]) -> Answer:
        """Try one target after the other until `exchange` brings an answer; each attempt is booked before the next.

        Raises:
            TollhouseError: as `generate`.
        """
        while True:
            try:
                return await self._attempt(way, place, exchange)
            except (NotSent, Refused, Broken) as failure:
                if len(way.tried) >= self._max_attempts:
                    raise way.refusal() from failure
                place = await self._departures.next(way, failure)

    async def _attempt(self, way: Way, place: Place, exchange: Callable[[Trial], Awaitable[Served]]) -> Answer:
        """Make one attempt at a place, which is given back whatever happens.

        Raises:
            NotSent, Refused, Broken: it failed, as the way has noted.
        """
        try:
            stage = Stage(place, way.plan.stop(place.target), self._departures.key(way, place))
            return await self._made(way, stage, exchange)
        finally:
            place.release()

    async def _made(self, way: Way, stage: Stage, exchange: Callable[[Trial], Awaitable[Served]]) -> Answer:
        """Reserve, exchange, and book how the attempt ended; measure it on the way."""
        started_at = time.perf_counter()
        attempt = await self._open(way, stage)
        try:
            async with attempt:
                way.is_claimed = True
                stage = _granted(stage, attempt)
                trial = Trial(way, stage, attempt, self._upstream_call(way, stage, attempt))
                served = await self._served(trial, exchange)
                _note_served(attempt, served)
        finally:
            self._note_ended(way, stage.stop, attempt, seconds=time.perf_counter() - started_at)
        outcome = self._outcome(trial, served.bill)
        if served.cut_off is not None:
            raise served.cut_off
        return Answer(served.body, outcome)

    async def _open(self, way: Way, stage: Stage) -> Attempt:
        """Reserve.

        Raises:
            DeadlineTooShort: the caller's time is up; nothing is held.
            UpstreamOutcomeUnknown: it was not admitted, and one before it may have been served.
        """
        call = way.call
        seconds_left = call.deadline - time.monotonic()
        if seconds_left <= 0:
            raise DeadlineTooShort
        terms = stage.stop.terms(call, is_first=not way.is_claimed)
        try:
            return await self._attempts.open(terms, timeout_seconds=_verdict_seconds(seconds_left), permit=call.permit)
        except TollhouseError as refusal:
            if way.unknown_attempts:
                raise way.refusal() from refusal
            raise

    async def _served(self, trial: Trial, exchange: Callable[[Trial], Awaitable[Served]]) -> Served:
        """Exchange, and tell everybody who learns from it how it went."""
        started_at = time.perf_counter()
        try:
            with upstream_step(trial) as upstream:
                served = await exchange(trial)
                note_answer(upstream, served)
        except (NotSent, Refused) as outage:
            self._departures.note_outage(trial, outage)
            raise
        except Broken as failure:
            self._departures.note_unknown(trial, failure, seconds=time.perf_counter() - started_at)
            raise
        self._departures.note_served(trial, served.bill, seconds=time.perf_counter() - started_at)
        return served

    async def _exchange(self, trial: Trial) -> Served:
        body = await self.upstream.call(trial.upstream_call)
        return Served(
            body,
            response_id_of(body),
            bill_of(trial.upstream_call.method, trial.stage.stop, body, trial.attempt),
            model_version=model_version_of(body),
            finish_reasons=finish_reasons_of(body.get("candidates")),
        )

    def _note_ended(self, way: Way, stop: Stop, attempt: Attempt, *, seconds: float) -> None:
        """Measure an attempt that was admitted, and have kept what was sent if it may have been served."""
        ended = attempt.settlement
        if ended is None:
            return
        self._metrics.upstream_attempt_finished(
            target=stop.target.kind, model=stop.target.model, outcome=ended.outcome_word, seconds=seconds
        )
        if ended.kind is not RecordKind.REFUSED and attempt.settled_at is not None:
            way.record.settled(
                attempt_id=attempt.attempt_id,
                model=stop.target.model,
                settled_at=attempt.settled_at,
                prompt=stop.body,
            )

    def _upstream_call(self, way: Way, stage: Stage, attempt: Attempt) -> UpstreamCall:
        # Past the caller's deadline we go on listening for a while: what is paid for should be known exactly.
        seconds_left = way.call.deadline - time.monotonic()
        return UpstreamCall(
            attempt_id=attempt.attempt_id,
            destination=stage.stop.target.destination,
            method=way.call.method,
            body=stage.stop.body,
            timeout_seconds=min(self._upstream_timeout_seconds, seconds_left + self._settle_grace_seconds),
            silence_seconds=self._departures.silence_seconds(way, stage.place, seconds_left=seconds_left),
            pause_seconds=PAUSE_SECONDS,
            key=stage.key.secret.reveal(),
        )

    def note_first_chunk(self, trial: Trial, *, seconds: float) -> None:
        """Tell the metrics how long a stream's first chunk took."""
        target = trial.stage.stop.target
        note(first_chunk_seconds=round(seconds, 6))
        self._metrics.upstream_first_chunk(target=target.kind, model=target.model, seconds=seconds)
        self._departures.note_first_chunk(trial, seconds=seconds)

    def _outcome(self, trial: Trial, bill: Bill) -> Outcome:
        way, stop = trial.way, trial.stage.stop
        if bill.priced.cost_nanos > trial.attempt.held_nanos:
            self._metrics.settled_above_hold(model=stop.target.model)
        self._metrics.call_settled(
            tier=stop.tier, model=stop.target.model, usage=bill.usage, cost_nanos=bill.priced.cost_nanos
        )
        return Outcome(
            attempt_id=trial.attempt.attempt_id,
            request_id=way.call.request_id,
            scope=way.call.scope,
            route=RouteTaken(
                tier=stop.tier,
                model=stop.target.model,
                target=stop.target.kind,
                account_id=stop.target.account_id,
                region=stop.target.region,
                tried=tuple(way.tried),
                choice=way.plan.choice,
            ),
            usage=bill.usage,
            priced=bill.priced,
            settled_at=trial.attempt.settled_at or trial.attempt.reservation.dispatched_at,
            notices=(*way.plan.notices, *stop.notices, *bill.notices, *_notices_of(way)),
            correlation_id=way.call.correlation_id,
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
    return stage._replace(stop=clamped)


def _notices_of(way: Way) -> list[CallNotice]:
    """Return what the caller is told of the way that his call has taken."""
    notices = []
    if way.is_fallback:
        message = f"The call was not served by its first choice; attempts made: {len(way.tried)}."
        notices.append(CallNotice(code="FALLBACK_USED", message=message, metadata={"attempts": str(len(way.tried))}))
    if way.unknown_attempts:
        attempts = ", ".join(map(str, way.unknown_attempts))
        notices.append(
            CallNotice(
                code="RETRIED_AFTER_UNKNOWN_OUTCOME",
                message="An attempt whose outcome is unknown is booked in suspense beside the one that answered.",
                metadata={"attempt_id": attempts},
            )
        )
    return notices
