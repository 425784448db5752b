"""Breakers on a bench: their time stands still, and what they tell is kept."""

from dataclasses import dataclass, field

from tollhouse_server.traffic.breakers import (
    BreakerChange,
    BreakerKey,
    BreakerPolicy,
    Breakers,
    State,
)
from tollhouse_server.traffic.verdicts import Verdict

KEY = BreakerKey("one", "europe-west1", "gemini-2.5-flash")
POLICY = BreakerPolicy(jitter=0.0, probes=1, probes_to_close=2)


@dataclass
class Bench:
    """Breakers whose time stands still until a test moves it, and what they told."""

    policy: BreakerPolicy = POLICY
    chance: float = 0.0
    now: float = 1000.0
    told: list[BreakerChange] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breakers = Breakers(
            policy=self.policy, on_change=self.told.append, clock=lambda: self.now, chance=lambda: self.chance
        )

    def call(self, verdict: Verdict, *, times: int = 1, key: BreakerKey = KEY) -> None:
        for _ in range(times):
            self.breakers.begin(key)
            self.breakers.record(key, verdict, 0.0)

    def fail(self, times: int = 5) -> None:
        self.call(Verdict.FAILURE, times=times)

    def state(self, key: BreakerKey = KEY) -> State:
        return next(one.state for one in self.breakers.snapshot() if one.key == key)
