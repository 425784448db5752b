"""Breakers against a model that is too simple to be wrong: what they may never do, whatever happens."""

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tollhouse_server.traffic.breakers import BreakerChange, BreakerKey, BreakerPolicy, Breakers, Forced, State
from tollhouse_server.traffic.verdicts import Verdict

KEYS = [BreakerKey("one", "eu", "flash"), BreakerKey("one", "us", "flash"), BreakerKey("two", "", "pro")]
PATTERNS = [*KEYS, BreakerKey("one", "", ""), BreakerKey("one", "", "flash"), BreakerKey("two", "", "")]
POLICY = BreakerPolicy(
    minimum_calls=6, failures_in_a_row=3, probes=2, longest_delay_seconds=40.0, probe_seconds=15.0, idle_seconds=1e9
)


@dataclass
class Seen:
    """What an observer knows of a breaker: what it told, and the probes that he let out."""

    state: State = State.CLOSED
    opened_at: float = 0.0
    base_delay_seconds: float = 0.0


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin where they are admitted and end as they like; time passes; orders come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.orders: dict[BreakerKey, Forced] = {}
        self.seen = {key: Seen() for key in KEYS}
        self.flights: dict[BreakerKey, list[float]] = {key: [] for key in KEYS}
        self.probes: dict[BreakerKey, list[float]] = {key: [] for key in KEYS}
        self.breakers = Breakers(
            policy=POLICY, on_change=self.hear, clock=lambda: self.now, chance=lambda: self.now % 1.0
        )

    def hear(self, change: BreakerChange) -> None:
        if change.cause.value in {"order", "first_call"}:
            return
        seen = self.seen[change.key]
        assert change.forced is None, "what is forced does not change by itself"
        assert change.after is not None
        seen.state = change.after
        self.probes[change.key].clear()
        if change.after is State.OPEN:
            assert POLICY.delay_seconds * (1 - POLICY.jitter) <= change.delay_seconds <= POLICY.longest_delay_seconds
            seen.opened_at, seen.base_delay_seconds = self.now, change.delay_seconds

    def forced(self, key: BreakerKey) -> Forced | None:
        fitting = [
            (bool(pattern.model), bool(pattern.region), forced)
            for pattern, forced in self.orders.items()
            if pattern.account_id == key.account_id
            and pattern.region in ("", key.region)
            and pattern.model in ("", key.model)
        ]
        return max(fitting, key=lambda one: one[:2])[2] if fitting else None

    @rule(key=st.sampled_from(KEYS))
    def begin(self, key: BreakerKey) -> None:
        if not self.breakers.admits(key):
            return
        self.breakers.begin(key)
        self.flights[key].append(self.now)
        if self.forced(key) is None and self.seen[key].state is State.HALF_OPEN:
            self.probes[key].append(self.now)

    @rule(key=st.sampled_from(KEYS), verdict=st.sampled_from(Verdict), newest=st.booleans())
    def end(self, key: BreakerKey, verdict: Verdict, newest: bool) -> None:
        if not self.flights[key]:
            return
        began = self.flights[key].pop(-1 if newest else 0)
        if began in self.probes[key]:
            self.probes[key].remove(began)
        self.breakers.record(key, verdict, self.now - began)

    @rule(key=st.sampled_from(KEYS), times=st.integers(1, 8))
    def fail(self, key: BreakerKey, times: int) -> None:
        for _ in range(times):
            self.begin(key)
            self.end(key, Verdict.FAILURE, newest=True)

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.0, 10.0, 45.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(pattern=st.sampled_from(PATTERNS), forced=st.sampled_from([None, *Forced]))
    def order(self, pattern: BreakerKey, forced: Forced | None) -> None:
        self.orders.pop(pattern, None)
        if forced is not None:
            self.orders[pattern] = forced
        self.breakers.order(self.orders)

    @invariant()
    def forced_states_win(self) -> None:
        for key in KEYS:
            forced = self.forced(key)
            if forced is not None:
                assert self.breakers.admits(key) is (forced is Forced.CLOSED)

    @invariant()
    def nobody_is_admitted_while_open_and_somebody_after(self) -> None:
        for key in KEYS:
            seen = self.seen[key]
            if self.forced(key) is not None:
                continue
            if seen.state is State.OPEN:
                assert self.breakers.admits(key) is (self.now - seen.opened_at >= seen.base_delay_seconds)
            if seen.state is State.CLOSED:
                assert self.breakers.admits(key)

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        for key in KEYS:
            if self.forced(key) is None and self.seen[key].state is State.HALF_OPEN:
                out = [began for began in self.probes[key] if self.now - began < POLICY.probe_seconds]
                assert len(out) <= POLICY.probes
                assert self.breakers.admits(key) is (len(out) < POLICY.probes)


TestBreakers = BreakerMachine.TestCase
TestBreakers.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
