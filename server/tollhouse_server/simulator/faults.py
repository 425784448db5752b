"""Fault plans: which calls go wrong, in which way, and how often."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from tollhouse_server.simulator import errors
from tollhouse_server.simulator.errors import GeminiError
from tollhouse_server.simulator.keys import DEFAULT_PROJECT, Caller, key_id

REFUSING = frozenset({"400", "401", "403", "404", "429", "500", "503", "504"})
SERVED = frozenset({"hang", "slow", "reset", "truncate", "cut", "garbage"})
_REASONS = ("suspended", "leaked")


@dataclass(slots=True)
class FaultPlan:
    """One plan.

    kind: 400, 401, 403, 404, 429, 500, 503, 504 (a refusal, not served) or hang, slow, reset, truncate, cut, garbage:
        truncate ends an answer in good order in the middle of an event, cut does so between two, without the last.
    key (stored as its id), project, region, model, method: None matches every call.
    reason: why a 403, `suspended` or `leaked`.
    retry_delay_seconds: what a 429 says in RetryInfo; None = a 429 without any details, as Vertex sends them.
    requests_per_minute: the quota that a 429 says was met; whoever believes it sends no more than that.
    count: how many calls it still hits (None = no end); rate: chance per call in 0..1, drawn from `seed`.
    after_chunks: how many chunks leave before hang, reset, truncate, cut or garbage; 0 = not one whole chunk.
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
    retry_delay_seconds: float | None = 1.0
    requests_per_minute: int = 10
    after_chunks: int = 0
    delay_seconds: float = 0.0
    served: bool = True
    region: str | None = None
    reason: str = "suspended"
    hits: int = 0
    id: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in REFUSING | SERVED:
            raise ValueError(f"unknown kind {self.kind!r}; known: {', '.join(sorted(REFUSING | SERVED))}")
        if self.reason not in _REASONS:
            raise ValueError(f"reason must be one of {', '.join(_REASONS)}")
        for name in ("rate", "retry_delay_seconds", "after_chunks", "delay_seconds"):
            given = getattr(self, name)
            if given is None and name == "retry_delay_seconds":
                continue
            if not isinstance(given, (int, float)) or given < 0:
                raise ValueError(f"{name} must be a number and not negative")
        if not isinstance(self.requests_per_minute, int) or self.requests_per_minute < 1:
            raise ValueError("requests_per_minute must be a whole number and at least 1")
        if self.count is not None and not isinstance(self.count, int):
            raise ValueError("count must be a whole number or null")
        self._random = random.Random(self.seed)  # noqa: S311 - reproducible on purpose

    def shown(self) -> dict[str, Any]:
        """Give it as the admin path lists it."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    def matches(self, caller: Caller, model: str, method: str) -> bool:
        """Whether the plan names this call and is not used up."""
        return (
            self.count != 0
            and (self.key is None or self.key == caller.key_id)
            and (self.project is None or self.project == caller.project)
            and (self.region is None or self.region == caller.region)
            and (self.model is None or self.model == model)
            and (self.method is None or self.method == method)
        )

    def strike(self) -> bool:
        """Draw for one matching call; True uses up one of `count`."""
        if self.rate < 1.0 and self._random.random() >= self.rate:
            return False
        self.hits += 1
        if self.count is not None:
            self.count -= 1
        return True

    def refusal(
        self, model: str, *, caller: Caller | None = None, service: str = errors.DEVELOPER
    ) -> GeminiError | None:
        """Give the error of a refusing kind."""
        if self.kind not in REFUSING:
            return None
        who = caller or Caller("", self.project or DEFAULT_PROJECT)
        if self.kind == "429":
            return self._exhausted(model, who, service)
        if self.kind == "403":
            return errors.key_leaked() if self.reason == "leaked" else errors.key_suspended(who.project, service)
        if self.kind == "401":
            return errors.token_refused(service)
        return _SIMPLE[self.kind]()

    def _exhausted(self, model: str, caller: Caller, service: str) -> GeminiError:
        if self.retry_delay_seconds is None:
            return errors.resource_exhausted()
        return errors.quota_exceeded(
            model=model,
            retry_delay_seconds=self.retry_delay_seconds,
            quota_value=self.requests_per_minute,
            service=service,
            location=caller.region,
        )


_SIMPLE: dict[str, Callable[[], GeminiError]] = {
    "400": lambda: errors.invalid_argument("Request contains an invalid argument."),
    "404": errors.path_not_found,
    "500": errors.internal,
    "503": errors.unavailable,
    "504": errors.deadline_exceeded,
}


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

    def strike(self, caller: Caller, model: str, method: str, *, named_only: bool = False) -> FaultPlan | None:
        """Give the plan that hits this call, if any; `named_only` leaves out plans that name no method."""
        for plan in self._plans:
            if named_only and plan.method is None:
                continue
            if plan.matches(caller, model, method) and plan.strike():
                return plan
        return None
