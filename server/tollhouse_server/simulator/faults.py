"""Fault plans: which calls go wrong, in which way, and how often."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from tollhouse_server.simulator import errors
from tollhouse_server.simulator.errors import GeminiError
from tollhouse_server.simulator.keys import Caller, key_id

REFUSING = frozenset({"429", "500", "503", "504", "400", "403"})
SERVED = frozenset({"hang", "slow", "reset", "truncate", "garbage"})


@dataclass(slots=True)
class FaultPlan:
    """One plan.

    kind: 429, 500, 503, 504, 400, 403 (a refusal, not served) or hang, slow, reset, truncate, garbage.
    key (stored as its id), project, model, method: None matches every call.
    count: how many calls it still hits (None = no end); rate: chance per call in 0..1, drawn from `seed`.
    after_chunks: how many chunks leave before hang, reset, truncate or garbage; 0 = not one byte.
    delay_seconds: for slow, before the first byte and after each chunk; for hang, how long (0 = until hang-up).
    served: whether a hang or reset before any byte was billed all the same (the call log has it then).
    """

    kind: str
    key: str | None = None
    project: str | None = None
    model: str | None = None
    method: str | None = None
    count: int | None = None
    rate: float = 1.0
    seed: int = 0
    retry_delay_seconds: float = 1.0
    after_chunks: int = 0
    delay_seconds: float = 0.0
    served: bool = True
    hits: int = 0
    id: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in REFUSING | SERVED:
            raise ValueError(f"unknown kind {self.kind!r}; known: {', '.join(sorted(REFUSING | SERVED))}")
        for name in ("rate", "retry_delay_seconds", "after_chunks", "delay_seconds"):
            if not isinstance(getattr(self, name), (int, float)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a number and not negative")
        if self.count is not None and not isinstance(self.count, int):
            raise ValueError("count must be a whole number or null")
        self._random = random.Random(self.seed)  # noqa: S311 - reproducible on purpose

    def shown(self) -> dict[str, Any]:
        """Give it as the admin path lists it."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    def matches(self, caller: Caller, model: str, method: str) -> bool:
        """Whether the plan names this call and is not used up."""
        wanted = ((self.key, caller.key_id), (self.project, caller.project), (self.model, model), (self.method, method))
        return self.count != 0 and all(want is None or want == have for want, have in wanted)

    def strike(self) -> bool:
        """Draw for one matching call; True uses up one of `count`."""
        if self.rate < 1.0 and self._random.random() >= self.rate:
            return False
        self.hits += 1
        if self.count is not None:
            self.count -= 1
        return True

    def refusal(self, model: str) -> GeminiError | None:
        """Give the error of a refusing kind."""
        if self.kind == "429":
            return errors.quota_exceeded(model=model, retry_delay_seconds=self.retry_delay_seconds)
        simple: dict[str, Callable[[], GeminiError]] = {
            "500": errors.internal,
            "503": errors.unavailable,
            "504": errors.deadline_exceeded,
            "403": lambda: errors.key_suspended(self.project or "simulated-project"),
            "400": lambda: errors.invalid_argument("Request contains an invalid argument."),
        }
        build = simple.get(self.kind)
        return build() if build else None


class FaultPlans:
    """The plans in the order they were set; the first that matches and strikes decides."""

    def __init__(self) -> None:
        self._plans: list[FaultPlan] = []
        self._last_id = 0

    def add(self, settings: dict[str, Any]) -> FaultPlan:
        """Add a plan from its JSON; ValueError or TypeError names what is wrong."""
        given = {name: value for name, value in settings.items() if name not in {"id", "hits", "_random"}}
        if given.get("key") is not None:
            given["key"] = key_id(given["key"])
        plan = FaultPlan(**given | {"kind": str(given.get("kind"))})
        self._last_id += 1
        plan.id = self._last_id
        self._plans.append(plan)
        return plan

    def clear(self, plan_id: int | None = None) -> None:
        """Remove one plan, or all."""
        self._plans = [plan for plan in self._plans if plan_id is not None and plan.id != plan_id]

    def all(self) -> list[FaultPlan]:
        """Give the plans, used-up ones too, with their hits."""
        return list(self._plans)

    def strike(self, caller: Caller, model: str, method: str) -> FaultPlan | None:
        """Give the plan that hits this call, if any."""
        for plan in self._plans:
            if plan.matches(caller, model, method) and plan.strike():
                return plan
        return None
