"""Where each attempt of a call departs from: its place, its key, and what is learned of how it went."""

import time
from typing import Protocol

from tollhouse_server.errors import DeadlineTooShort, TollhouseError
from tollhouse_server.generation.bills import Bill
from tollhouse_server.generation.keys import ChosenKey, KeyChooser
from tollhouse_server.generation.patience import Patience
from tollhouse_server.generation.refusals import (
    Outage,
    is_key_refused,
    is_out_of_quota,
    is_overloaded,
    quota_violations,
    retry_delay_seconds,
)
from tollhouse_server.generation.trials import Trial
from tollhouse_server.generation.way import Way
from tollhouse_server.routing.targets import UpstreamKeyMeta
from tollhouse_server.telemetry.steps import step
from tollhouse_server.traffic.places import Place
from tollhouse_server.traffic.retry_budget import RetryBudget
from tollhouse_server.traffic.terms import PlaceRequest
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.traffic.verdicts import is_fault_of_target
from tollhouse_server.upstream.protocol import Broken, Method, NotSent, Refused, TimedOut

_MOST_OF_TIME_LEFT = 0.5
"""So much of a caller's time he may wait for the turn of a further attempt; the rest is for the attempt."""


class KeyWatch(Protocol):
    """Who takes note of what upstream keys meet, and what they spend."""

    def refused(self, key: UpstreamKeyMeta, *, http_status: int) -> None:
        """Take a key that the upstream has refused out of use, in this process at once and everywhere soon."""

    def used(self, key: UpstreamKeyMeta, *, cost_nanos: int) -> None:
        """Count a served call."""


class Departures:
    """Lets the attempts of a call depart, one after the other."""

    def __init__(self, *, traffic: Traffic, retries: RetryBudget, keys: KeyChooser, key_watch: KeyWatch) -> None:
        self._traffic = traffic
        self._retries = retries
        self._keys = keys
        self._key_watch = key_watch
        self._patience = Patience()

    async def first(self, way: Way) -> Place:
        """Wait for the place of a call's first attempt.

        Raises:
            NoUpstreamKey, ModelUnpriced: no target can be asked.
            Overloaded, TargetsUnhealthy, UpstreamExhausted, DeadlineTooShort: none could be in time.
        """
        self._retries.note_call()
        return await self._place(way)

    async def next(self, way: Way, failure: NotSent | Refused | Broken) -> Place:
        """Wait for the place of the attempt that follows a failure, and first for its turn among such attempts.

        Raises:
            TollhouseError: none may follow, or has a place in time: what the caller is told of the attempts made.
        """
        seconds_left = way.call.deadline - time.monotonic()
        if not way.may_go_on or seconds_left <= 0 or not way.open_targets(self._keys.has_key):
            raise way.refusal() from failure
        if not await self._retries.turn(within_seconds=seconds_left * _MOST_OF_TIME_LEFT):
            raise way.refusal() from failure
        try:
            return await self._place(way)
        except TollhouseError:
            raise way.refusal() from failure

    def key(self, way: Way, place: Place) -> ChosenKey:
        """Return the key to travel with.

        Raises:
            NotSent: the account's last key was taken out of use while the call waited.
        """
        key = self._keys.pick(place.target.account_id)
        if key is None:
            outage = NotSent("no usable key is left")
            way.note_outage(place.target, None, outage)
            raise outage
        return key

    def silence_seconds(self, way: Way, place: Place, *, seconds_left: float) -> float | None:
        """Return how long the upstream may keep silent; None where the call could not go anywhere else."""
        if not way.plan.resend_unknown or not way.may_go_elsewhere(place.target, self._keys.has_key):
            return None
        return self._patience.seconds(place.target.model, way.call.method, seconds_left=seconds_left)

    def note_outage(self, trial: Trial, outage: Outage) -> None:
        """Take note of an attempt that is known to have cost nothing."""
        place, key, has_other_key, is_overload = trial.stage.place, trial.stage.key.meta, False, False
        if isinstance(outage, Refused) and is_overloaded(outage):
            is_overload = place.overloaded()
        elif isinstance(outage, Refused) and is_out_of_quota(outage):
            place.exhausted(retry_delay_seconds(outage), quota_violations(outage))
        elif is_fault_of_target(outage):
            place.failed()
        else:
            place.ignored()
        if isinstance(outage, Refused) and is_key_refused(outage):
            self._key_watch.refused(key, http_status=outage.http_status)
            has_other_key = self._keys.has_key(key.account_id)
        trial.way.note_outage(
            place.target, trial.attempt.attempt_id, outage, has_other_key=has_other_key, is_overload=is_overload
        )

    def note_unknown(self, trial: Trial, failure: Broken, *, seconds: float) -> None:
        """Take note of an attempt that may have been served and charged.

        One that was ended sooner than answers usually come says nothing of its target: whoever has little time must not
        take it away from all others.
        """
        place, method = trial.stage.place, trial.way.call.method
        if isinstance(failure, TimedOut) and self._patience.is_usual(place.target.model, method, seconds):
            place.ignored()
        else:
            place.failed()
        trial.way.note_unknown(trial.stage.place.target, trial.attempt.attempt_id, failure)

    def note_served(self, trial: Trial, bill: Bill, *, seconds: float) -> None:
        """Take note of an attempt that was served."""
        place, usage, cost_nanos = trial.stage.place, bill.usage, bill.priced.cost_nanos
        # Google counts what it charges itself, which a relay's surcharge is no part of.
        list_nanos = cost_nanos - bill.priced.surcharge_nanos
        place.succeeded(
            seconds,
            input_tokens=usage.input_tokens if usage else None,
            images=usage.images if usage else None,
            cost_nanos=list_nanos,
        )
        if trial.way.call.method is not Method.STREAM:
            self._patience.note(place.target.model, trial.way.call.method, seconds)
        self._key_watch.used(trial.stage.key.meta, cost_nanos=cost_nanos)
        trial.way.note_served(place.target, trial.attempt.attempt_id)

    def note_first_chunk(self, trial: Trial, *, seconds: float) -> None:
        """Take note of how long a stream's first chunk took."""
        self._patience.note(trial.stage.place.target.model, Method.STREAM, seconds)

    async def _place(self, way: Way) -> Place:
        call = way.call
        targets = way.open_targets(self._keys.has_key)
        if not targets:
            raise DeadlineTooShort
        first = way.plan.stop(targets[0])
        request = PlaceRequest(
            targets=targets,
            tenant_id=call.scope.tenant_id,
            department_id=call.scope.department_path[-1],
            priority=way.plan.priority,
            input_tokens=first.likely_input_tokens,
            images=min(first.ceiling.images, 1),
            cost_nanos=first.ceiling.fixed_nanos,
            deadline=call.deadline,
            weight=way.plan.weight,
            goes_first=bool(way.tried),
        )
        with step("wait_for_place", priority=way.plan.priority.name):
            return await self._traffic.place(request)
