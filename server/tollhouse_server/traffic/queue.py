"""The queue of calls that wait for a place: who is next, who is shed, who has waited too long. It knows no clock.

Classes go strictly by importance, with a small part guaranteed to the lower ones. Within a class departments take turns
by weight (start-time fair queueing: Goyal, Vin, Cheng 1996; the cost of a turn is one call), within a department the
first comes first. Calls with the same targets form a group: those for a target which is full are in nobody's way.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final

from tollhouse_server.routing.priorities import Priority
from tollhouse_server.traffic.buckets import Bucket
from tollhouse_server.traffic.lines import Line
from tollhouse_server.traffic.pace import Taker
from tollhouse_server.traffic.terms import PlaceRequest

LOWER_CLASSES_SHARE: Final = 0.05
_OWED_PER_TURN = LOWER_CLASSES_SHARE / (1.0 - LOWER_CLASSES_SHARE)

_MOST_IDLE_FLOWS = 4096
"""Departments without waiters of which it is remembered how far ahead of the others they are."""

GroupKey = tuple[tuple[int, str, str, str], ...]
FlowKey = tuple[str, str]


class Flow:
    """The waiters of one department in one class, and the virtual time at which its next turn begins."""

    __slots__ = ("key", "priority", "starts_at", "waiters", "weight")

    def __init__(self, key: FlowKey, priority: Priority) -> None:
        self.key = key
        self.priority = priority
        self.weight = 1.0
        self.starts_at = 0.0
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()


class Group:
    """Waiters with the same targets. `blocked_until` is when the one whose turn it is may have room, as far as known.

    He waits for room in the buckets of `short_of`: nobody whose turn comes later may take it away.
    """

    __slots__ = ("blocked_until", "buckets", "key", "lines", "short_of", "turns", "waiting")

    def __init__(self, key: GroupKey, buckets: tuple[Bucket, ...]) -> None:
        self.key = key
        self.buckets = buckets
        self.blocked_until = float("-inf")
        self.short_of: tuple[Bucket, ...] = ()
        self.lines: dict[Flow, Line] = {}
        self.turns: tuple[list[tuple[float, int, Flow]], ...] = tuple([] for _ in Priority)
        self.waiting = 0

    def turn_away(self, amounts: list[int]) -> None:
        """Count a call that goes without a place at any of the targets."""
        for bucket in self.buckets:
            bucket.demand.turn_away(amounts)


class Waiter:
    """A call that waits. `answer` is whatever its owner waits on; this module does not look at it."""

    __slots__ = ("amounts", "answer", "enqueued_at", "flow", "gives_up_at", "group", "number", "request", "taker")

    def __init__(
        self, request: PlaceRequest, amounts: list[int], answer: Any, *, enqueued_at: float, gives_up_at: float
    ) -> None:
        self.request = request
        self.taker: Taker = (request.priority, request.tenant_id, request.department_id)
        self.amounts = amounts
        self.answer = answer
        self.enqueued_at = enqueued_at
        self.gives_up_at = gives_up_at
        self.number = 0
        self.flow: Flow
        self.group: Group


Turn = tuple[Priority, float, int, Group, Flow]
Order = list[Turn]
Aside = tuple[Group, list[tuple[float, int, Flow]], tuple[float, int, Flow]]


class _Depths:
    """Which flow of a class has most waiters, at constant cost."""

    __slots__ = ("_levels", "_top")

    def __init__(self) -> None:
        self._levels: dict[int, dict[Flow, None]] = {}
        self._top = 0

    def moved(self, flow: Flow, before: int, after: int) -> None:
        if before:
            level = self._levels[before]
            del level[flow]
            if not level:
                del self._levels[before]
        if after:
            self._levels.setdefault(after, {})[flow] = None
            self._top = max(self._top, after)
        while self._top and self._top not in self._levels:
            self._top -= 1

    def deepest(self) -> Flow:
        return next(reversed(self._levels[self._top]))


class Queue:
    """All waiters of one process."""

    def __init__(self) -> None:
        self._flows: tuple[dict[FlowKey, Flow], ...] = tuple({} for _ in Priority)
        self._virtual_time = [0.0] * len(Priority)
        self._served = [0] * len(Priority)
        self._owed = 0.0
        self._numbers = 0
        self._turns_given = 0
        self._depths = tuple(_Depths() for _ in Priority)
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self.groups: dict[GroupKey, Group] = {}
        self.waiting = [0] * len(Priority)
        self.length = 0

    def add(self, waiter: Waiter, key: GroupKey, buckets: Callable[[], Sequence[Bucket]]) -> None:
        """Put a waiter at the end of his department's line, or at its head."""
        self._numbers += 1
        waiter.number = self._numbers
        flow = waiter.flow = self._flow(waiter.request)
        flow.weight = waiter.request.weight
        group = waiter.group = self.groups.get(key) or self._make_group(key, buckets())
        if not flow.waiters:
            # Who was away does not save up turns.
            flow.starts_at = max(flow.starts_at, self._virtual_time[flow.priority])
        flow.waiters[waiter] = None
        self._depths[flow.priority].moved(flow, len(flow.waiters) - 1, len(flow.waiters))
        line = group.lines.get(flow)
        if line is None:
            group.blocked_until = float("-inf")
            line = group.lines[flow] = Line(waiter.enqueued_at)
            heappush(group.turns[flow.priority], (flow.starts_at, waiter.number, flow))
        line[waiter] = None
        if waiter.request.goes_first:
            group.blocked_until = float("-inf")
            for waiters in (line, flow.waiters):
                waiters.move_to_end(waiter, last=False)
        self._count(waiter, 1)
        heappush(self._deadlines, (waiter.gives_up_at, waiter.number, waiter))

    def remove(self, waiter: Waiter) -> None:
        """Take a waiter out, wherever he stands, and count him as one who went without a place."""
        self._take_out(waiter)
        waiter.group.turn_away(waiter.amounts)

    def _take_out(self, waiter: Waiter) -> None:
        flow, group = waiter.flow, waiter.group
        del flow.waiters[waiter]
        self._depths[flow.priority].moved(flow, len(flow.waiters) + 1, len(flow.waiters))
        line = group.lines[flow]
        if next(iter(line)) is waiter:
            group.blocked_until = float("-inf")
        del line[waiter]
        if not line:
            self._close_line(group, flow)
        self._count(waiter, -1)
        if not group.waiting:
            self._drop_group(group)
        if len(self._deadlines) > 2 * self.length + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in entry[2].flow.waiters]
            heapify(self._deadlines)

    def _close_line(self, group: Group, flow: Flow) -> None:
        """Forget an empty line; its entry among the turns is dropped when it is met, or when there are many such."""
        del group.lines[flow]
        turns = group.turns[flow.priority]
        if len(turns) > 2 * len(group.lines) + 16:
            kept = {one: number for _, number, one in turns if one in group.lines}
            turns[:] = [(one.starts_at, number, one) for one, number in kept.items()]
            heapify(turns)

    def _count(self, waiter: Waiter, by: int) -> None:
        self.length += by
        self.waiting[waiter.flow.priority] += by
        group = waiter.group
        group.waiting += by
        for bucket in group.buckets:
            for metric, amount in enumerate(waiter.amounts):
                bucket.demand.waiting[metric] += by * amount

    def order(self) -> Order:
        """Return all groups in the order of whose turn it is, for one round of `next`."""
        turns = [turn for group in self.groups.values() if (turn := _turn(group)) is not None]
        heapify(turns)
        return turns

    def next(self, order: Order) -> Waiter | None:
        """Take the next group out of `order` and return its waiter whose turn it is; he stays in the queue."""
        while order:
            turn = _turn(order[0][3])
            if turn is None:
                heappop(order)
            elif turn > order[0]:
                # His department has had a turn meanwhile, in another group.
                heapreplace(order, turn)
            else:
                group = heappop(order)[3]
                return next(iter(group.lines[turn[4]]))
        return None

    def set_aside(self, waiter: Waiter) -> Aside:
        """Take the turn away from the one who has it in his group, until it is pushed back."""
        turns = waiter.group.turns[waiter.flow.priority]
        return waiter.group, turns, heappop(turns)

    def owed(self) -> Waiter | None:
        """Return who of the lower classes has a turn by the part that is guaranteed to them; None while none is due."""
        present = [priority for priority in Priority if self.waiting[priority]]
        if self._owed < 1.0 or len(present) < 2:
            return None
        chosen = min(present[1:], key=lambda priority: self._served[priority])
        turns = [turn for group in self.groups.values() if (turn := _first_turn(group, chosen)) is not None]
        if not turns:
            return None
        _, _, flow, group = min(turns)
        return next(iter(group.lines[flow]))

    def grant(self, waiter: Waiter, *, is_owed: bool) -> None:
        """Take out the waiter who got a place, and charge his department for the turn."""
        flow = waiter.flow
        priority = flow.priority
        waiter.group.lines[flow].note_turn()
        self._take_out(waiter)
        self._virtual_time[priority] = max(self._virtual_time[priority], flow.starts_at)
        flow.starts_at += 1.0 / flow.weight
        self._turns_given += 1
        self._served[priority] = self._turns_given
        if is_owed:
            self._owed -= 1.0
        elif any(self.waiting[priority + 1 :]):
            self._owed = min(self._owed + _OWED_PER_TURN, 1.0)

    def line(self, request: PlaceRequest, group: Group) -> Line | None:
        """Return the line that a call would join, None where there is none."""
        flow = self._flows[request.priority].get((request.tenant_id, request.department_id))
        return group.lines.get(flow) if flow is not None else None

    def least_important(self) -> Waiter | None:
        """Return who is shed first: of the least important class, of its department with most waiting, the newest."""
        for priority in reversed(Priority):
            if self.waiting[priority]:
                return next(reversed(self._depths[priority].deepest().waiters))
        return None

    def expired(self, now: float) -> Iterator[Waiter]:
        """Yield who has waited as long as he may; the caller removes each before he asks for the next."""
        while (first := self.first_deadline()) is not None and first <= now:
            yield heappop(self._deadlines)[2]

    def first_deadline(self) -> float | None:
        """Return when the first waiter gives up, None when nobody waits."""
        while self._deadlines:
            gives_up_at, _, waiter = self._deadlines[0]
            if waiter in waiter.flow.waiters:
                return gives_up_at
            heappop(self._deadlines)
        return None

    def oldest(self) -> float | None:
        """Return since when the first in any line has waited."""
        lines = (line for group in self.groups.values() for line in group.lines.values())
        return min((next(iter(line)).enqueued_at for line in lines), default=None)

    def unblock(self, bucket: Bucket) -> None:
        """Say that a bucket may have room again."""
        for group in bucket.groups:
            group.blocked_until = float("-inf")

    def _flow(self, request: PlaceRequest) -> Flow:
        flows, key = self._flows[request.priority], (request.tenant_id, request.department_id)
        found = flows.get(key)
        if found is None:
            if len(flows) >= _MOST_IDLE_FLOWS:
                self._forget_flows(flows, self._virtual_time[request.priority])
            found = flows[key] = Flow(key, request.priority)
        return found

    def _forget_flows(self, flows: dict[FlowKey, Flow], virtual_time: float) -> None:
        for key in [key for key, flow in flows.items() if not flow.waiters and flow.starts_at <= virtual_time]:
            del flows[key]

    def _make_group(self, key: GroupKey, buckets: Sequence[Bucket]) -> Group:
        group = self.groups[key] = Group(key, tuple(dict.fromkeys(buckets)))
        for bucket in group.buckets:
            bucket.groups[group] = None
        return group

    def _drop_group(self, group: Group) -> None:
        del self.groups[group.key]
        for bucket in group.buckets:
            del bucket.groups[group]


def put_back(order: Order, group: Group) -> None:
    """Give a group that got a place, and may get another, its next turn in `order`."""
    if (turn := _turn(group)) is not None:
        heappush(order, turn)


def _turn(group: Group) -> Turn | None:
    """Return the turn of a group: that of its most important class."""
    for priority in Priority:
        if group.turns[priority] and (first := _first_turn(group, priority)) is not None:
            return (priority, first[0], first[1], group, first[2])
    return None


def _first_turn(group: Group, priority: Priority) -> tuple[float, int, Flow, Group] | None:
    """Return the first turn of a group in a class; entries that time has passed over are brought up to date."""
    turns = group.turns[priority]
    while turns:
        starts_at, number, flow = turns[0]
        if flow not in group.lines:
            heappop(turns)
        elif flow.starts_at > starts_at:
            heapreplace(turns, (flow.starts_at, number, flow))
        else:
            return starts_at, number, flow, group
    return None
