"""The story of one call: route, price the worst case, reserve, send, settle, answer.

Every upstream attempt is its own ledger row. An attempt that is known to have cost nothing may be followed by one at
the next target; an attempt whose outcome is unknown ends the call, because sending it again could charge it twice.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tollhouse_server.errors import DeadlineTooShort, NoUpstreamKey, UpstreamOutcomeUnknown
from tollhouse_server.generation.attempts import Attempt, Attempts, response_id_of
from tollhouse_server.generation.calls import Answer, CallNotice, GenerationCall, Outcome, RouteTaken
from tollhouse_server.generation.keys import KeyChooser
from tollhouse_server.generation.plans import Planner, Stop, destination_of
from tollhouse_server.generation.refusals import may_go_elsewhere, refusal_of
from tollhouse_server.generation.usages import Metered, metered
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.upstream.protocol import Broken, NotSent, Refused, Upstream, UpstreamCall
from tollhouse_server.vault.secret_text import SecretText


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stop of a call's way, numbered from 1, with the key to be used there."""

    number: int
    stop: Stop
    key: SecretText


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One attempt at one stage, in flight."""

    stage: Stage
    attempt: Attempt
    send: UpstreamCall


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

        Raises:
            LimitExceeded, DuplicateRequest, RequestIdReused: refused before anything was sent.
            UpstreamRefused, UpstreamExhausted, UpstreamUnavailable: no target served it; nothing was charged.
            UpstreamOutcomeUnknown: it may have been served; it is in suspense.
        """
        failures: list[NotSent | Refused] = []
        for stage in self.stages(call):
            try:
                async with self.trial(call, stage) as trial:
                    answer = await self.upstream.call(trial.send)
                    bill = metered(call.method, stage.stop, answer.body)
                    settle(trial.attempt, bill, response_id_of(answer.body))
                return Answer(body=answer.body, outcome=self.outcome(call, trial, bill))
            except (NotSent, Refused) as error:
                failures.append(error)
                if not may_go_elsewhere(error):
                    break
        raise refusal_of(failures)

    def stages(self, call: GenerationCall) -> Iterator[Stage]:
        """Yield at most `max_attempts` stops that we hold a key for; without any the call is refused, nothing held.

        Raises:
            NoUpstreamKey: there is none.
            ModelUnknown, ModelShutDown, ModelUnpriced: see `Planner.stops`.
        """
        number, keyless = 0, None
        for stop in self._planner.stops(call):
            key = self._keys.pick(stop.target.account_id)
            if key is None:
                keyless = stop
                continue
            number += 1
            yield Stage(number=number, stop=stop, key=key)
            if number == self._max_attempts:
                return
        if number == 0:
            raise NoUpstreamKey(model=keyless.target.model if keyless else call.model or call.tier or "")

    @asynccontextmanager
    async def trial(self, call: GenerationCall, stage: Stage) -> AsyncIterator[Trial]:
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
            async with self._attempts.open(terms, timeout_seconds=seconds_left) as attempt:
                yield Trial(stage=stage, attempt=attempt, send=self._send(call, stage, attempt))
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

    def _send(self, call: GenerationCall, stage: Stage, attempt: Attempt) -> UpstreamCall:
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

    def outcome(self, call: GenerationCall, trial: Trial, bill: Metered) -> Outcome:
        """Return what the caller learns of a call that was served and booked."""
        stop = trial.stage.stop
        if bill.priced.cost_nanos > stop.ceiling.cost_nanos:
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


def settle(attempt: Attempt, bill: Metered, response_id: str) -> None:
    """Note how a served attempt is booked: at its usage, or in suspense where the answer reports none."""
    if bill.usage is None:
        attempt.unknown("USAGE_MISSING")
    else:
        attempt.served(bill.usage, bill.priced, response_id)


def _fallback_notice(trial: Trial) -> tuple[CallNotice, ...]:
    if trial.stage.number == 1:
        return ()
    number = trial.stage.number
    message = f"The call was served by target {number} of its route."
    return (CallNotice(code="FALLBACK_USED", message=message, metadata={"attempts": str(number)}),)
