"""Generation's only door to the room: a call gets a place at one of its targets, now or after its turn in the queue."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from heapq import heappush
from typing import Any

from tollhouse_server.errors import DeadlineTooShort, Overloaded, TollhouseError
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import Account, Target
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breakers import Breakers
from tollhouse_server.traffic.bucket_reports import SECTION as BUCKETS
from tollhouse_server.traffic.bucket_reports import BucketReports
from tollhouse_server.traffic.buckets import Bucket, Buckets, amounts_of
from tollhouse_server.traffic.lines import Line
from tollhouse_server.traffic.outlets import Outlet, Outlets, Outlook
from tollhouse_server.traffic.pace import Taker
from tollhouse_server.traffic.places import Place
from tollhouse_server.traffic.queue import Aside, Group, GroupKey, Queue, Waiter, put_back
from tollhouse_server.traffic.report_store import Exchange
from tollhouse_server.traffic.reports import Reports
from tollhouse_server.traffic.terms import PlaceRequest

_SHORTEST_CALL_SECONDS = 0.05
_ANSWER_SECONDS = 0.1
"""What booking a call and answering it may need, beyond the time at its target."""
_MOST_OF_DEADLINE = 0.5
"""Of a deadline that is left to the call itself, however long such calls take."""
_SHORT_LINE = 16
"""So few may always wait: how fast a line moves says little of each of them."""
_LONG_STALL_SECONDS = 2.0
"""Where it is known that nobody gets a place for so long, what came before does not tell what comes after."""
_SHEDDABLE_PATIENCE = 0.5
"""Of the time that it has, which a sheddable call may have to wait: it gives way before others have to."""
_SMOOTHING = 0.05
_SHORTEST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0

Room = tuple[Target, Outlet]


class Traffic:
    """Places of this process."""

    def __init__(
        self,
        *,
        accounts: Iterable[Account],
        breakers: Breakers,
        metrics: Metrics,
        max_calls: int = 512,
        max_waiting: int = 1000,
        buckets: Buckets | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.buckets = buckets or Buckets(clock=clock, chance=chance)
        self.buckets.reconfigure(accounts)
        self.queue = Queue()
        self.in_flight = 0
        self.bucket_reports = BucketReports(self.buckets, metrics, clock=clock)
        self._breakers = breakers
        self.outlets = Outlets(self.buckets, breakers, chance)
        self._metrics = metrics
        self._max_calls = max_calls
        self._max_waiting = max_waiting
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = float("inf")
        self._is_dispatching = False
        self._dispatch_again = False
        self._granted_at = clock()
        self._grant_seconds = 0.0

    async def place(self, request: PlaceRequest) -> Place:
        """Return a place at the lowest rank that has room, waiting for it within the deadline.

        Raises:
            Overloaded: the call was shed, or its turn would not come in time.
            TargetsUnhealthy: every breaker is open past the deadline.
            UpstreamExhausted: every account is out of quota past the deadline.
            DeadlineTooShort: the call's turn did not come in time.
        """
        now = self._clock()
        amounts = amounts_of(input_tokens=request.input_tokens, images=request.images, cost_nanos=request.cost_nanos)
        if not self.queue.length and self.in_flight < self._max_calls and now < request.deadline:
            taker = (request.priority, request.tenant_id, request.department_id)
            room = self.outlets.choose(request.targets, taker, amounts, now, ())
            if room is not None:
                return self._take(room, taker, amounts, now)
        return await self._wait(request, amounts, now)

    def reconfigure(self, accounts: Iterable[Account]) -> None:
        """Take the accounts of a new catalogue."""
        self.buckets.reconfigure(accounts)
        self.outlets.forget()
        self.wake()

    def wake(self) -> None:
        """Look again for whoever waits: shares, breakers or accounts have changed."""
        if not self.queue.length:
            return
        for group in self.queue.groups.values():
            group.blocked_until = float("-inf")
        self._dispatch()

    def _take(self, room: Room, taker: Taker, amounts: list[int], now: float) -> Place:
        target, outlet = room
        self.in_flight += 1
        self._breakers.begin(outlet.key)
        return Place(target, outlet, amounts, outlet.bucket.take(taker, amounts, now), self, begun_at=now)

    def ended(self, bucket: Bucket) -> None:
        """Note that a place was given back; to be called by it alone."""
        self.in_flight -= 1
        if self.queue.length:
            for other in self.buckets.together_with(bucket):
                self.queue.unblock(other)
            self._dispatch()

    @property
    def now(self) -> float:
        """Return the moment by the clock that all here go by."""
        return self._clock()

    @property
    def breakers(self) -> Breakers:
        """Return whom places tell how calls ended."""
        return self._breakers

    # --- waiting ---

    async def _wait(self, request: PlaceRequest, amounts: list[int], now: float) -> Place:
        gives_up_at = self._gives_up_at(request, now)
        if gives_up_at <= now:
            raise DeadlineTooShort
        if (refusal := self.outlets.refusal(request.targets, now, gives_up_at)) is not None:
            raise refusal
        key = _group_key(request.targets)
        self._refuse_if_hopeless(request, amounts, key, now, gives_up_at)
        answer: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        waiter = Waiter(request, amounts, answer, enqueued_at=now, gives_up_at=gives_up_at)
        if not self.queue.length:
            self._granted_at = now
        self.queue.add(waiter, key, lambda: self.outlets.buckets_of(request.targets))
        self._dispatch()
        if self._shed():
            self._dispatch()
        try:
            return await answer
        except asyncio.CancelledError:
            self._abandon(waiter, answer)
            raise

    def _gives_up_at(self, request: PlaceRequest, now: float) -> float:
        """Return until when to wait, so that time is left for the call itself.

        Whoever waits longest goes next, so under overload all go at this moment: the usual time would be too late for
        half of them, and each of those is paid for and not heard.
        """
        call_seconds = min(bucket.most_seconds for bucket in self.outlets.buckets_of(request.targets))
        needed_seconds = max(call_seconds, _SHORTEST_CALL_SECONDS) + _ANSWER_SECONDS
        return request.deadline - min((request.deadline - now) * _MOST_OF_DEADLINE, needed_seconds)

    def _refuse_if_hopeless(
        self, request: PlaceRequest, amounts: list[int], key: GroupKey, now: float, gives_up_at: float
    ) -> None:
        """Tell a caller at once whose turn will not come in time: his next attempt should come when it can work."""
        group = self.queue.groups.get(key) if not request.goes_first else None
        line = self.queue.line(request, group) if group is not None else None
        if group is None or line is None or now + _LONG_STALL_SECONDS < group.blocked_until < float("inf"):
            return
        patience_seconds = gives_up_at - now
        if request.priority is Priority.SHEDDABLE:
            patience_seconds *= _SHEDDABLE_PATIENCE
        elif len(line) < _SHORT_LINE:
            return
        wait_seconds = self._wait_seconds(line, group, now)
        if wait_seconds is not None and wait_seconds > patience_seconds and line.ends_at > now + patience_seconds / 2:
            self._metrics.call_shed(priority=request.priority.name)
            group.turn_away(amounts)
            raise Overloaded(
                priority=request.priority.name,
                waiting=self.queue.length,
                retry_after_seconds=_retry_seconds(wait_seconds, line, now),
            )

    def _wait_seconds(self, line: Line, group: Group, now: float) -> float | None:
        return line.wait_seconds(now, call_seconds=min(bucket.seconds for bucket in group.buckets))

    def _retry_seconds(self, waiter: Waiter) -> float:
        """Estimate in how long those who wait in a waiter's line now will have had their turns, or gone."""
        line, now = waiter.group.lines[waiter.flow], self._clock()
        wait_seconds = self._wait_seconds(line, waiter.group, now)
        if wait_seconds is None:
            wait_seconds = self.queue.length * self._grant_seconds
        return _retry_seconds(wait_seconds, line, now)

    def _abandon(self, waiter: Waiter, answer: asyncio.Future[Place]) -> None:
        """Leave the queue, or give back the place that was granted when it was too late."""
        if waiter in waiter.flow.waiters:
            self.queue.remove(waiter)
            self._dispatch()
        elif answer.done() and not answer.cancelled() and answer.exception() is None:
            answer.result().release()

    def _shed(self) -> bool:
        """Refuse the least important waiters that are too many; True when there were any."""
        queue, shed = self.queue, False
        while queue.length > self._max_waiting or (
            queue.waiting[Priority.SHEDDABLE] and queue.length > self._max_waiting // 2
        ):
            waiter = queue.least_important()
            if waiter is None:
                break
            priority = waiter.flow.priority.name
            error = Overloaded(priority=priority, waiting=queue.length, retry_after_seconds=self._retry_seconds(waiter))
            self._metrics.call_shed(priority=priority)
            self._refuse(waiter, error)
            shed = True
        return shed

    def _refuse(self, waiter: Waiter, error: TollhouseError) -> None:
        self.queue.remove(waiter)
        if not waiter.answer.done():
            waiter.answer.set_exception(error)

    # --- granting ---

    def _dispatch(self) -> None:
        """Give places to whoever waits and may have one. Breakers that change meanwhile may ask for it once more."""
        if self._is_dispatching:
            self._dispatch_again = True
            return
        self._is_dispatching = True
        try:
            self._dispatch_again = True
            while self._dispatch_again:
                self._dispatch_again = False
                self._grant_in_order()
        finally:
            self._is_dispatching = False
        self._set_timer()

    def _grant_in_order(self) -> None:
        if self.in_flight >= self._max_calls:
            return
        queue, now = self.queue, self._clock()
        order, this_round = queue.order(), _Round()
        is_owed_due = True
        while queue.length and self.in_flight < self._max_calls:
            if is_owed_due and (owed := queue.owed()) is not None:
                is_owed_due = self._grant(owed, now, this_round.withheld, is_owed=True)
                continue
            waiter = queue.next(order)
            if waiter is None:
                break
            group = waiter.group
            if group.blocked_until > now:
                this_round.withheld.update(group.short_of)
            elif self._grant(waiter, now, this_round.withheld, is_owed=False) or self._passes_on(
                waiter, now, this_round
            ):
                put_back(order, group)
        this_round.end(is_complete=self.in_flight < self._max_calls)

    def _grant(self, waiter: Waiter, now: float, withheld: set[Bucket], *, is_owed: bool) -> bool:
        """Give a waiter a place if there is room; True also when he has gone, so that he is in nobody's way."""
        if waiter.answer.done():
            self.queue.remove(waiter)
            return True
        room = self.outlets.choose(waiter.request.targets, waiter.taker, waiter.amounts, now, withheld)
        if room is None:
            return False
        self.queue.grant(waiter, is_owed=is_owed)
        waiter.answer.set_result(self._take(room, waiter.taker, waiter.amounts, now))
        self._grant_seconds += (now - self._granted_at - self._grant_seconds) * _SMOOTHING
        self._granted_at = now
        self._metrics.call_waited(priority=waiter.flow.priority.name, seconds=now - waiter.enqueued_at)
        return True

    def _passes_on(self, waiter: Waiter, now: float, this_round: "_Round") -> bool:
        """Note what a waiter without room waits for; True if he only leaves it to others, so that these may go."""
        group = waiter.group
        outlook = self.outlets.outlook(waiter.request.targets, waiter.taker, waiter.amounts, now)
        this_round.block(group, outlook)
        if outlook.is_held_back:
            this_round.aside.append(self.queue.set_aside(waiter))
        return outlook.is_held_back

    def _set_timer(self) -> None:
        """Wake up when the first waiter gives up, or time makes room for the first group."""
        moments = [group.blocked_until for group in self.queue.groups.values()]
        now = self._clock()
        wake_at = min((moment for moment in moments if moment > now), default=float("inf"))
        if (deadline := self.queue.first_deadline()) is not None:
            wake_at = min(wake_at, deadline)
        if wake_at != self._wakes_at:
            self._cancel_timer()
            if wake_at != float("inf"):
                self._wakes_at = wake_at
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(max(0.0, wake_at - now), self._wake_up)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._wakes_at = float("inf")

    def _wake_up(self) -> None:
        self._cancel_timer()
        for waiter in self.queue.expired(self._clock()):
            self._refuse(waiter, DeadlineTooShort(retry_after_seconds=self._retry_seconds(waiter)))
        self._dispatch()

    # --- reports ---

    def join(self, reports: Reports) -> None:
        """Take part in the reports of this process; they must have been given `bucket_reports` as their tally."""
        reports.contribute(BUCKETS, self.bucket_reports.section)
        reports.contribute("queue", self._queue_section)
        reports.on_heard(self._heard)

    def _heard(self, exchange: Exchange) -> None:
        self.bucket_reports.heard(exchange)
        self.wake()

    def _queue_section(self) -> dict[str, Any]:
        """Return the section `queue`, and set the gauges that say the same."""
        waiting = {priority.name: self.queue.waiting[priority] for priority in Priority}
        for priority, count in waiting.items():
            self._metrics.calls_waiting(priority=priority, count=count)
        self._metrics.calls_placed(self.in_flight)
        oldest_at = self.queue.oldest()
        return {
            "waiting": waiting,
            "oldest_seconds": 0.0 if oldest_at is None else self._clock() - oldest_at,
            "in_flight": self.in_flight,
            "max_calls": self._max_calls,
        }


class _Round:
    """What is found out in one round of granting: which buckets are kept for whom, and who is passed over."""

    __slots__ = ("aside", "room_at", "withheld")

    def __init__(self) -> None:
        self.withheld: set[Bucket] = set()
        """Buckets in which somebody waits for room: nobody whose turn comes later may take it away."""
        self.room_at: dict[Group, float] = {}
        self.aside: list[Aside] = []

    def block(self, group: Group, outlook: Outlook) -> None:
        """Note when a group may have room; what others wait for may come at any time."""
        room_at = outlook.room_at if self.withheld.isdisjoint(group.buckets) else float("-inf")
        if group in self.room_at:
            group.short_of += outlook.short_of
            room_at = min(room_at, self.room_at[group])
        else:
            group.short_of = outlook.short_of
        self.room_at[group] = room_at
        self.withheld.update(outlook.short_of)

    def end(self, *, is_complete: bool) -> None:
        """Remember for the next round what still holds then, and give those passed over their turn back."""
        passed_over = {group for group, _, _ in self.aside}
        for group, room_at in self.room_at.items():
            if is_complete or group not in passed_over:
                group.blocked_until = room_at
        for _, turns, turn in self.aside:
            heappush(turns, turn)


def _retry_seconds(wait_seconds: float, line: Line, now: float) -> float:
    return min(max(min(wait_seconds, line.ends_at - now), _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)


def _group_key(targets: Sequence[Target]) -> GroupKey:
    return tuple((target.rank, target.account_id, target.region, target.model) for target in targets)
