"""Random traffic in virtual time: nothing is leaked, nobody is forgotten, no limit is passed."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tollhouse_server.errors import TollhouseError
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import AccountLimit, AccountMetric
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breakers import Breakers
from tollhouse_server.traffic.places import Place
from tollhouse_server.traffic.traffic import Traffic
from tollhouse_server.traffic.usage_window import IN_FLIGHT

from tests.unit.traffic import virtual_time
from tests.unit.traffic.calls import MODEL, account, request, target

MOST_CALLS = 4
MOST_WAITING = 12
REQUESTS_A_MINUTE = 6
TOKENS_A_MINUTE = 100
CONCURRENT = 3

LIMITED = (
    AccountLimit(metric=AccountMetric.REQUESTS_PER_MINUTE, amount=REQUESTS_A_MINUTE, model=MODEL),
    AccountLimit(metric=AccountMetric.INPUT_TOKENS_PER_MINUTE, amount=TOKENS_A_MINUTE),
    AccountLimit(metric=AccountMetric.CONCURRENT_CALLS, amount=CONCURRENT, model=MODEL),
)
WAYS = (
    (target("a"),),
    (target("a"), target("b")),
    (target("a"), target("b", rank=1)),
    (target("b", model="other"), target("a", rank=1)),
)

ASK = st.tuples(
    st.just("ask"),
    st.sampled_from(range(len(WAYS))),
    st.sampled_from(["loud", "quiet", "third"]),
    st.sampled_from(list(Priority)),
    st.integers(1, 60),
    st.floats(1, 200),
)
END = st.tuples(
    st.sampled_from(["succeed", "fail", "ignore", "exhaust", "release", "cancel", "cancel_two", "end_and_cancel"]),
    st.integers(0, 20),
    st.integers(0, 80),
)
PASS = st.tuples(st.just("pass"), st.floats(0, 40))
STEPS = st.lists(st.one_of(ASK, ASK, END, END, PASS), min_size=5, max_size=60)


@dataclass(slots=True)
class Run:
    """Traffic, the calls that ask and hold, and what was taken when."""

    traffic: Traffic
    asking: list[asyncio.Task[Place]] = field(default_factory=list)
    tokens_of: dict[asyncio.Task[Place], int] = field(default_factory=dict)
    holding: list[Place] = field(default_factory=list)
    taken: list[tuple[float, Place, int]] = field(default_factory=list)

    def step(self, kind: str, *words: object) -> None:
        if kind == "ask":
            self._ask(*words)
        elif kind.startswith("cancel") or kind == "end_and_cancel":
            if kind == "end_and_cancel" and self.holding:
                self.holding.pop(0).succeeded(0.1)
            for _ in range(2 if kind == "cancel_two" else 1):
                if self.asking:
                    self.asking.pop(int(str(words[0])) % len(self.asking)).cancel()
        elif self.holding:
            self._end(kind, self.holding.pop(int(str(words[0])) % len(self.holding)), int(str(words[1])))

    def _ask(self, way: object, department: object, priority: object, tokens: object, patience: object) -> None:
        assert isinstance(way, int)
        assert isinstance(priority, Priority)
        wanted = request(
            *WAYS[way],
            department=str(department),
            priority=priority,
            input_tokens=int(str(tokens)),
            deadline=virtual_time.now() + float(str(patience)),
        )
        task = asyncio.get_running_loop().create_task(self.traffic.place(wanted))
        self.tokens_of[task] = wanted.input_tokens
        self.asking.append(task)

    def _end(self, kind: str, place: Place, amount: int) -> None:
        if kind == "succeed":
            # Less than it took, so that no limit is passed by what nobody could know.
            place.succeeded(0.1, input_tokens=min(amount, 1))
        elif kind == "fail":
            place.failed()
        elif kind == "ignore":
            place.ignored()
        elif kind == "exhaust":
            place.exhausted(amount / 4 if amount % 2 else None, [])
        else:
            place.release()
            self.taken = [one for one in self.taken if one[1] is not place]

    def collect(self) -> None:
        """See whose place has come."""
        for task in [task for task in self.asking if task.done()]:
            self.asking.remove(task)
            error = task.exception()
            assert error is None or isinstance(error, TollhouseError)
            if error is None:
                self.holding.append(task.result())
                self.taken.append((virtual_time.now(), task.result(), self.tokens_of[task]))

    def check(self) -> None:
        """Hold the traffic against what its callers know."""
        traffic, now = self.traffic, virtual_time.now()
        assert traffic.in_flight == len(self.holding) <= MOST_CALLS
        assert traffic.queue.length == len(self.asking) <= MOST_WAITING
        at_a = [one for one in self.holding if one.target.account_id == "a"]
        assert len(at_a) <= CONCURRENT
        last_minute = [one for one in self.taken if one[0] > now - 60 and one[1].target.account_id == "a"]
        assert len(last_minute) <= REQUESTS_A_MINUTE
        assert traffic.queue.length == 0 or not self._first_has_room(now)

    def _first_has_room(self, now: float) -> bool:
        """Tell whether the one whose turn it is waits although he could go."""
        first = self.traffic.queue.next(self.traffic.queue.order())
        assert first is not None
        if self.traffic.in_flight >= MOST_CALLS:
            return False
        return self.traffic.outlets.choose(first.request.targets, first.taker, first.amounts, now, ()) is not None


async def settled() -> None:
    """Let everybody run who can."""
    for _ in range(6):
        await asyncio.sleep(0)


async def play(steps: list[tuple[str, ...]]) -> None:
    clock = virtual_time.now
    traffic = Traffic(
        accounts=[account(*LIMITED, account_id="a"), account(account_id="b")],
        breakers=Breakers(clock=clock),
        metrics=Metrics(CollectorRegistry()),
        max_calls=MOST_CALLS,
        max_waiting=MOST_WAITING,
        clock=clock,
    )
    run = Run(traffic)
    for kind, *words in steps:
        if kind == "pass":
            await asyncio.sleep(float(words[0]))
        else:
            run.step(kind, *words)
        await settled()
        run.collect()
        run.check()
    await drain(run)


async def drain(run: Run) -> None:
    """End every call that gets a place until nobody is left, and see that nothing is."""
    for _ in range(2000):
        while run.holding:
            run.holding.pop().ignored()
        if not run.asking:
            break
        await asyncio.wait(run.asking, return_when=asyncio.FIRST_COMPLETED)
        run.collect()
    await settled()
    assert not run.asking
    assert (run.traffic.in_flight, run.traffic.queue.length, run.traffic.queue.groups) == (0, 0, {})
    for bucket in run.traffic.buckets:
        assert not any(bucket.wanted)
        assert bucket.groups == {}
    for _, _, caps in run.traffic.buckets.parts():
        assert caps.window.sums[IN_FLIGHT] == 0


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_random_traffic_leaks_no_place_forgets_no_waiter_and_passes_no_limit(steps: list[tuple[str, ...]]) -> None:
    """Whatever callers and upstreams do in whatever order."""
    virtual_time.run(play(steps))
