"""The buckets of upstream accounts: what each has been used for, what it may still take, and until when it cools down.

Google limits projects, so a bucket belongs to an account and a model; all keys of the account share it. An account may
have limits for one model, and limits over all of them; a call counts in both.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tollhouse_server.routing.targets import Account
from tollhouse_server.traffic.caps import Caps
from tollhouse_server.traffic.congestion import Congestion
from tollhouse_server.traffic.days import PacificDay
from tollhouse_server.traffic.demand import Demand
from tollhouse_server.traffic.pace import KEPT_ROOM, UNPACED_ROOM, Pace, Taker
from tollhouse_server.traffic.quota_failures import learned_limits
from tollhouse_server.traffic.usage_window import DAY, IMAGES, IN_FLIGHT, METRICS, SPEND, TOKENS, Slot

_FIRST_COOLING_SECONDS = 1.0
_LONGEST_COOLING_SECONDS = 60.0
_LONGEST_STATED_COOLING_SECONDS = 600.0
"""A day's quota is out for hours, and Google says so; what is raised meanwhile should be found all the same."""
_JITTER = 0.1
_SMOOTHING = 0.1
_DEVIATION_SMOOTHING = 0.25
_DEVIATIONS = 3.0
"""So many mean deviations above the mean, which is nearly all (Jacobson 1988 has four, for a time-out)."""


class Bucket:
    """One account's room for one model. `over_all` are the account's limits for all models, None where it has none."""

    __slots__ = (
        "account_id",
        "caps",
        "congestion",
        "cooling_steps",
        "cooling_until",
        "demand",
        "deviation_seconds",
        "groups",
        "model",
        "over_all",
        "pace",
        "seconds",
    )

    def __init__(self, account_id: str, model: str, days: PacificDay) -> None:
        self.account_id = account_id
        self.model = model
        self.caps = Caps(days)
        self.over_all: Caps | None = None
        self.pace = Pace()
        self.congestion = Congestion()
        self.cooling_until = float("-inf")
        self.cooling_steps = 0
        self.seconds = 0.0
        """How long served calls take, smoothed."""
        self.deviation_seconds = 0.0
        """By how much they differ from that."""
        self.demand = Demand()
        self.groups: dict[Any, None] = {}
        """The groups of waiters that can go here; see queue.py."""

    def room(self, second: int, amounts: list[int]) -> float:
        """Return which part of the scarcest share is free, and 0 when a call of these amounts does not fit."""
        room = self.congestion.room(self.in_flight)
        if room and self.caps.in_force:
            room = min(room, self.caps.room(second, amounts))
        if room and self.over_all is not None:
            room = min(room, self.over_all.room(second, amounts))
        return room

    def holds_back(self, taker: Taker, room: float, now: float) -> bool:
        """Tell whether a department must leave the room that there is to others for the moment."""
        if room >= UNPACED_ROOM or not self.pace.is_greedy(taker):
            return False
        return room < KEPT_ROOM or self.pace.until > now

    def take(self, taker: Taker, amounts: list[int], now: float) -> tuple[Slot, Slot | None]:
        """Count a call that begins."""
        second, over_all = int(now), self.over_all
        if self.caps.in_force or over_all is not None:
            self._keep_pace(taker, amounts, now)
        slot = self.caps.window.take(second, amounts)
        return slot, over_all.window.take(second, amounts) if over_all is not None else None

    def _keep_pace(self, taker: Taker, amounts: list[int], now: float) -> None:
        pace = self.pace
        if pace.is_greedy(taker):
            seconds = self.caps.pace_seconds(amounts)
            if self.over_all is not None:
                seconds = max(seconds, self.over_all.pace_seconds(amounts))
            # Who comes late, for a timer or a busy loop, is not late for the next as well.
            pace.until = max(pace.until + seconds / pace.greedy_part, now)
        pace.took(taker, int(now))

    def correct(self, slots: tuple[Slot, Slot | None], *, tokens: int, images: int, nanos: int) -> None:
        """Count what a call used more, or less, than it took."""
        self.caps.window.correct(slots[0], tokens=tokens, images=images, nanos=nanos)
        if slots[1] is not None and self.over_all is not None:
            self.over_all.window.correct(slots[1], tokens=tokens, images=images, nanos=nanos)

    def give_back(self, slots: tuple[Slot, Slot | None]) -> None:
        """Count a request off again that was never sent."""
        self.caps.window.give_back(slots[0])
        if slots[1] is not None and self.over_all is not None:
            self.over_all.window.give_back(slots[1])

    def ended(self, slots: tuple[Slot, Slot | None]) -> None:
        """Count a call off that is no longer in flight."""
        self.caps.window.sums[IN_FLIGHT] -= 1
        if slots[1] is not None and self.over_all is not None:
            self.over_all.window.sums[IN_FLIGHT] -= 1

    def frees_at(self, second: int, amounts: list[int]) -> float:
        """Return the first moment at which time makes room that is not there for these amounts."""
        moments = [caps.frees_at(amounts) for caps in (self.caps, self.over_all) if caps is not None]
        return max(second + 1.0, min(moments))

    def day_ends_at(self) -> float:
        """Return when the day ends whose requests are used up, minus infinity where they are not."""
        ends = [
            caps.window.frees_at(DAY)
            for caps in (self.caps, self.over_all)
            if caps is not None
            for cap in caps.in_force
            if cap.metric == DAY and caps.window.sums[DAY] + cap.elsewhere >= cap.limit
        ]
        return max(ends, default=float("-inf"))

    @property
    def in_flight(self) -> int:
        """Return how many calls of this process are under way."""
        return self.caps.window.sums[IN_FLIGHT]

    def served(self, seconds: float, *, begun_at: float, now: float) -> None:
        """Note how long a call took; the account answers, so the next 429 is a first one again."""
        self.congestion.served(others=self.in_flight - 1, begun_at=begun_at, now=now)
        if self.seconds:
            error = seconds - self.seconds
            self.seconds += error * _SMOOTHING
            self.deviation_seconds += (abs(error) - self.deviation_seconds) * _DEVIATION_SMOOTHING
        else:
            self.seconds = seconds
        self.cooling_steps = 0

    @property
    def wanted(self) -> list[int]:
        """Return what calls would take that wait or went without a place, in the order of `METRICS`."""
        return self.demand.amounts(self.seconds)

    @property
    def most_seconds(self) -> float:
        """Return what nearly all calls take at the most."""
        return self.seconds + _DEVIATIONS * self.deviation_seconds


class Buckets:
    """All buckets of one process."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        days: PacificDay | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self.days = days or PacificDay(clock=clock)
        self._accounts: Mapping[str, Account] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._over_all: dict[str, Caps] = {}

    def __iter__(self) -> Iterator[Bucket]:
        return iter(self._buckets.values())

    def parts(self) -> Iterator[tuple[str, str, Caps]]:
        """Yield account, model (empty for all) and limits of everything that is counted."""
        for bucket in self._buckets.values():
            yield bucket.account_id, bucket.model, bucket.caps
        for account_id, caps in self._over_all.items():
            yield account_id, "", caps

    def reconfigure(self, accounts: Iterable[Account]) -> None:
        """Take the accounts of a new catalogue; what was used and learned stays, unless the account is gone."""
        self._accounts = {account.account_id: account for account in accounts}
        for account_id in [account_id for account_id in self._over_all if account_id not in self._accounts]:
            del self._over_all[account_id]
        for account_id, model in [key for key in self._buckets if key[0] not in self._accounts]:
            del self._buckets[account_id, model]
        now = self._clock()
        for account in self._accounts.values():
            over_all = [limit for limit in account.limits if not limit.model]
            if over_all or account.account_id in self._over_all:
                self._all_models(account.account_id).configure(over_all, now)
            for model in {limit.model for limit in account.limits if limit.model}:
                # Known from the start, so that the first call already keeps to the share.
                self.bucket(account.account_id, model)
        for bucket in self._buckets.values():
            self._configure(bucket, now)

    def bucket(self, account_id: str, model: str) -> Bucket:
        """Return the bucket of an account for a model, made where there was none."""
        found = self._buckets.get((account_id, model))
        if found is None:
            found = self._buckets[account_id, model] = Bucket(account_id, model, self.days)
            self._configure(found, self._clock())
        return found

    def _configure(self, bucket: Bucket, now: float) -> None:
        account = self._accounts.get(bucket.account_id)
        limits = account.limits if account is not None else ()
        bucket.caps.configure([limit for limit in limits if limit.model == bucket.model], now)
        bucket.over_all = self._over_all.get(bucket.account_id)

    def _all_models(self, account_id: str) -> Caps:
        caps = self._over_all.get(account_id)
        if caps is None:
            caps = self._over_all[account_id] = Caps(self.days)
            for bucket in self._buckets.values():
                if bucket.account_id == account_id:
                    bucket.over_all = caps
        return caps

    def knows(self, account_id: str) -> bool:
        """Tell whether an account is in the catalogue."""
        return account_id in self._accounts

    def cool(self, account_id: str, model: str, *, until: float) -> None:
        """Let a bucket cool down because another process was told to."""
        bucket = self.bucket(account_id, model)
        bucket.cooling_until = max(bucket.cooling_until, until)

    def together_with(self, bucket: Bucket) -> Iterable[Bucket]:
        """Return the buckets that room in `bucket` may make room in: all of its account where a limit is over all."""
        if bucket.over_all is None:
            return (bucket,)
        return [other for other in self._buckets.values() if other.account_id == bucket.account_id]

    def caps(self, account_id: str, model: str) -> Caps:
        """Return the limits of an account for a model, or for all models when that is empty."""
        return self.bucket(account_id, model).caps if model else self._all_models(account_id)

    def apply_time(self) -> None:
        """Let what was learned rise as time goes by; to be called now and then."""
        now = self._clock()
        for _, _, caps in self.parts():
            caps.apply(now)

    def exhaust(
        self,
        bucket: Bucket,
        retry_after_seconds: float | None,
        violations: Sequence[Mapping[str, Any]],
        *,
        begun_at: float,
    ) -> None:
        """Let a bucket cool down after a 429 of a call begun at `begun_at`, and learn which limit it met.

        One that names neither a limit nor a time is about the moment: fewer calls at a time are the answer to that.
        """
        now = self._clock()
        is_unexplained = retry_after_seconds is None and not violations
        if is_unexplained and bucket.congestion.refused(others=bucket.in_flight - 1, begun_at=begun_at, now=now):
            return
        # Calls that were under way together meet one and the same 429; only one after the cooling says more.
        if begun_at >= bucket.cooling_until or not bucket.cooling_steps:
            bucket.cooling_steps = min(bucket.cooling_steps + 1, 10)
        if retry_after_seconds is not None:
            delay_seconds = min(max(retry_after_seconds, 0.0), _LONGEST_STATED_COOLING_SECONDS)
        else:
            delay_seconds = min(_FIRST_COOLING_SECONDS * 2.0 ** (bucket.cooling_steps - 1), _LONGEST_COOLING_SECONDS)
        bucket.cooling_until = max(bucket.cooling_until, now + delay_seconds * (1.0 + _JITTER * self._chance()))
        for limit in learned_limits(violations):
            caps = self.caps(bucket.account_id, bucket.model if limit.per_model else "")
            caps.learn(METRICS.index(limit.metric), limit.amount, learned_at=now, now=now)


def amounts_of(*, input_tokens: int, images: int, cost_nanos: int) -> list[int]:
    """Return what a call takes, in the order of `METRICS`."""
    amounts = [1] * len(METRICS)
    amounts[TOKENS] = input_tokens
    amounts[IMAGES] = images
    amounts[SPEND] = cost_nanos
    return amounts
