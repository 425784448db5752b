"""Outlets: where calls can leave, an account's bucket for a model behind the breaker of its region; and the choice."""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from tollhouse_server.errors import TargetsUnhealthy, TollhouseError, UpstreamExhausted
from tollhouse_server.routing.targets import Target
from tollhouse_server.traffic.breakers import BreakerKey, Breakers
from tollhouse_server.traffic.buckets import Bucket, Buckets
from tollhouse_server.traffic.pace import KEPT_ROOM, UNPACED_ROOM, Taker

_NEVER = float("inf")


class Outlet:
    """A breaker and the bucket behind it."""

    __slots__ = ("bucket", "key")

    def __init__(self, key: BreakerKey, bucket: Bucket) -> None:
        self.key = key
        self.bucket = bucket


class Outlook(NamedTuple):
    """When a call that has no room may have it, infinity if only an event can bring it; and which buckets are full.

    `is_held_back` says that there is room which is left to other departments.
    """

    room_at: float
    short_of: tuple[Bucket, ...]
    is_held_back: bool


class Outlets(dict[tuple[str, str, str], Outlet]):
    """The outlets of one process, made when they are first asked for."""

    def __init__(self, buckets: Buckets, breakers: Breakers, chance: Callable[[], float]) -> None:
        super().__init__()
        self._buckets = buckets
        self._breakers = breakers
        self._chance = chance

    def __missing__(self, key: tuple[str, str, str]) -> Outlet:
        account_id, region, model = key
        outlet = self[key] = Outlet(BreakerKey(account_id, region, model), self._buckets.bucket(account_id, model))
        return outlet

    def forget(self) -> None:
        """Look all buckets up anew, after a change of accounts."""
        self.clear()

    def choose(
        self, targets: Sequence[Target], taker: Taker, amounts: list[int], now: float, withheld: Collection[Bucket]
    ) -> tuple[Target, Outlet] | None:
        """Return a target of the lowest rank that has room now.

        Among several chance decides, in proportion to head-room times weight times standing.
        """
        second, rank = int(now), -1
        found: list[tuple[float, Target, Outlet]] = []
        for target in targets:
            if target.rank != rank:
                if found:
                    break
                rank = target.rank
            outlet = self[target.account_id, target.region, target.model]
            bucket = outlet.bucket
            if bucket.cooling_until > now or bucket in withheld:
                continue
            room = bucket.room(second, amounts)
            if room < UNPACED_ROOM and bucket.holds_back(taker, room, now):
                continue
            if room and self._breakers.admits(outlet.key):
                found.append((room, target, outlet))
        if len(found) > 1:
            return self._drawn(found)
        return (found[0][1], found[0][2]) if found else None

    def _drawn(self, found: list[tuple[float, Target, Outlet]]) -> tuple[Target, Outlet]:
        """Return one of several targets that have room."""
        standing = self._breakers.standing
        reaches = list(accumulate([room * one.weight * standing(outlet.key) for room, one, outlet in found]))
        point = self._chance() * reaches[-1]
        for reach, (_, target, outlet) in zip(reaches, found, strict=True):
            if point < reach:
                return target, outlet
        return found[-1][1], found[-1][2]

    def outlook(self, targets: Sequence[Target], taker: Taker, amounts: list[int], now: float) -> Outlook:
        """Return what a call waits for that has no room at any of `targets`."""
        short_of, room_at, second, is_held_back = [], _NEVER, int(now), False
        for outlet in self._of(targets):
            bucket, barred_until = outlet.bucket, self._barred_until(outlet, now)
            if barred_until > now:
                room_at = min(room_at, barred_until)
            elif (room := bucket.room(second, amounts)) and bucket.holds_back(taker, room, now):
                is_held_back = True
                room_at = min(room_at, bucket.pace.until if room >= KEPT_ROOM else second + 1.0)
            else:
                short_of.append(bucket)
                room_at = min(room_at, bucket.frees_at(second, amounts))
        return Outlook(room_at, tuple(short_of), is_held_back)

    def refusal(self, targets: Sequence[Target], now: float, gives_up_at: float) -> TollhouseError | None:
        """Return what to say when it is certain that no target will have room in time, None when one may have."""
        opens_at = []
        is_unhealthy = True
        for outlet in self._of(targets):
            bucket_opens_at = max(outlet.bucket.cooling_until, outlet.bucket.day_ends_at())
            breaker_opens_at = self._breaker_opens_at(outlet, now)
            if max(bucket_opens_at, breaker_opens_at) <= gives_up_at:
                return None
            is_unhealthy = is_unhealthy and breaker_opens_at > gives_up_at
            opens_at.append(max(bucket_opens_at, breaker_opens_at))
        retry_after_seconds = min(opens_at) - now if min(opens_at) != _NEVER else None
        if is_unhealthy:
            return TargetsUnhealthy(targets=len(targets), retry_after_seconds=retry_after_seconds)
        return UpstreamExhausted(retry_after_seconds=retry_after_seconds)

    def buckets_of(self, targets: Sequence[Target]) -> list[Bucket]:
        """Return the bucket of each target."""
        return [outlet.bucket for outlet in self._of(targets)]

    def _of(self, targets: Sequence[Target]) -> Iterator[Outlet]:
        for target in targets:
            yield self[target.account_id, target.region, target.model]

    def _barred_until(self, outlet: Outlet, now: float) -> float:
        """Return until when nothing is sent there, whatever its size: it cools down, or its breaker is open."""
        return max(outlet.bucket.cooling_until, self._breaker_opens_at(outlet, now))

    def _breaker_opens_at(self, outlet: Outlet, now: float) -> float:
        seconds = self._breakers.seconds_until_probe(outlet.key)
        return _NEVER if seconds is None else now + seconds
