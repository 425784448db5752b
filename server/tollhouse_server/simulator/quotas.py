"""Quotas per project and model, as Google sets them: all keys of a project draw on one.

A quota that names no model counts all models together, one that names no region counts all regions together. The
metric and limit names of requests and tokens are the real API's paid tier's; those of images and spend are made up in
the same manner, because no recording has them.
"""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from zoneinfo import ZoneInfo

from tollhouse_server.simulator import errors
from tollhouse_server.simulator.errors import GeminiError, JsonObject, Violation
from tollhouse_server.simulator.keys import Caller

_SLOTS = 60
_MINUTE_SECONDS = 60.0
_PACIFIC = ZoneInfo("America/Los_Angeles")
_REQUESTS = "generate_content_paid_tier_requests"
_TOKENS = "generate_content_paid_tier_input_token_count"
# Limit -> (metric, quota id) of google.rpc.QuotaFailure.
_NAMES = {
    "requests_per_minute": (_REQUESTS, "GenerateRequestsPerMinutePerProjectPerModel"),
    "input_tokens_per_minute": (_TOKENS, "GenerateContentInputTokensPerModelPerMinute"),
    "requests_per_day": (_REQUESTS, "GenerateRequestsPerDayPerProjectPerModel"),
    "images_per_minute": ("generate_content_paid_tier_images", "GenerateImagesPerMinutePerProjectPerModel"),
    "spend_nanos_per_10_minutes": ("generate_content_paid_tier_spend", "GenerateContentSpendPer10MinutesPerProject"),
}
LIMITS = tuple(_NAMES)


@dataclass(frozen=True, slots=True)
class Load:
    """What one call takes from its project's quotas."""

    input_tokens: int
    output_tokens: int
    images: int

    @classmethod
    def of(cls, usage: JsonObject, images: int) -> Load:
        """Read it from usage metadata."""
        sent = usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0)
        return cls(sent, usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0), images)


class _Rolling:
    """An amount over the last `seconds`, kept in slots of a sixtieth, so that its size does not grow with the load."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._slots: deque[tuple[float, int]] = deque()
        self._total = 0

    def used(self, now: float) -> int:
        while self._slots and now - self._slots[0][0] >= self.seconds:
            self._total -= self._slots.popleft()[1]
        return self._total

    def add(self, now: float, amount: int) -> None:
        self._total += amount
        # A slot is dated by its youngest call, so that none is forgotten before its time.
        if len(self._slots) > 1 and now - self._slots[-2][0] < self.seconds / _SLOTS:
            amount += self._slots.pop()[1]
        self._slots.append((now, amount))

    def wait_seconds(self, now: float, surplus: int) -> float:
        """Say how long until at least `surplus` of what is used has passed."""
        for at, amount in self._slots:
            surplus -= amount
            if surplus <= 0:
                return max(0.0, at + self.seconds - now)
        return self.seconds


class _PacificDay:
    """An amount since midnight Pacific time, when Google's days end."""

    def __init__(self) -> None:
        self._total = 0
        self._ends_at = 0.0

    def used(self, now: float) -> int:
        if now >= self._ends_at:
            self._total, self._ends_at = 0, _next_midnight(now)
        return self._total

    def add(self, now: float, amount: int) -> None:
        self._total = self.used(now) + amount

    def wait_seconds(self, now: float, surplus: int) -> float:
        del surplus
        return max(0.0, self._ends_at - now)


def _next_midnight(now: float) -> float:
    today = datetime.datetime.fromtimestamp(now, _PACIFIC)
    tomorrow = (today + datetime.timedelta(days=1)).date()
    return datetime.datetime.combine(tomorrow, datetime.time(), _PACIFIC).timestamp()


@dataclass(slots=True)
class Quota:
    """The limits of one project; None is no limit.

    Spend is input and output tokens and images at the prices named here, in nano-dollars, counted when a call is
    served: the call that passes the limit is served, the next is not. minute_seconds shortens minutes for tests.
    """

    project: str
    model: str = ""
    region: str = ""
    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    images_per_minute: int | None = None
    spend_nanos_per_10_minutes: int | None = None
    nanos_per_input_token: int = 0
    nanos_per_output_token: int = 0
    nanos_per_image: int = 0
    minute_seconds: float = _MINUTE_SECONDS
    _used: dict[str, _Rolling | _PacificDay] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name) if each.init else ""
            if isinstance(given, bool) or (isinstance(given, (int, float)) and given < 0):
                raise ValueError(f"{each.name} must be a number and not negative")
            if not isinstance(given, str) and given is not None and not isinstance(given, (int, float)):
                raise ValueError(f"{each.name} must be a number")
        self._used = {
            "requests_per_day": _PacificDay(),
            "spend_nanos_per_10_minutes": _Rolling(10 * self.minute_seconds),
        }
        for name in ("requests_per_minute", "input_tokens_per_minute", "images_per_minute"):
            self._used[name] = _Rolling(self.minute_seconds)

    @property
    def scope(self) -> tuple[str, str, str]:
        """What it counts; there is one quota of each scope."""
        return self.project, self.model, self.region

    def go_on_from(self, earlier: Quota) -> None:
        """Take over what an earlier setting of the same scope has counted."""
        if earlier.minute_seconds == self.minute_seconds:
            self._used = earlier._used

    def shown(self, now: float) -> dict[str, Any]:
        """Give it as the admin path lists it, with what is used."""
        settings = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return settings | {"used": {name: used.used(now) for name, used in self._used.items()}}

    def matches(self, caller: Caller, model: str) -> bool:
        """Whether a call counts here."""
        return self.model in {"", model} and self.region in {"", caller.region}

    def exceeded(self, load: Load | None, now: float) -> Iterator[tuple[str, int, float]]:
        """Yield each limit that has no room for a load (None: for any), its amount, and the seconds until it has."""
        wanted = self._amounts(load)
        for name in LIMITS:
            limit = getattr(self, name)
            if limit is None:
                continue
            window = self._used[name]
            # What a call will cost is known only afterwards, so spend stops the call after.
            needed = 1 if name == "spend_nanos_per_10_minutes" else wanted[name]
            surplus = window.used(now) + needed - limit
            if needed and surplus > 0:
                yield name, limit, window.wait_seconds(now, surplus)

    def charge(self, load: Load, now: float) -> None:
        """Count a served call."""
        for name, amount in self._amounts(load).items():
            if amount:
                self._used[name].add(now, amount)

    def _amounts(self, load: Load | None) -> dict[str, int]:
        if load is None:
            return {
                "requests_per_minute": 1,
                "requests_per_day": 1,
                "input_tokens_per_minute": 1,
                "images_per_minute": 0,
            }
        spend = load.input_tokens * self.nanos_per_input_token + load.output_tokens * self.nanos_per_output_token
        return {
            "requests_per_minute": 1,
            "requests_per_day": 1,
            "input_tokens_per_minute": load.input_tokens,
            "images_per_minute": load.images,
            "spend_nanos_per_10_minutes": spend + load.images * self.nanos_per_image,
        }


class Quotas:
    """The quotas of all projects."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_project: dict[str, list[Quota]] = {}

    def put(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Set a quota from its JSON; one of the same scope is replaced, what it has counted stays."""
        quota = Quota(**settings)
        others = []
        for each in self._by_project.get(quota.project, ()):
            if each.scope == quota.scope:
                quota.go_on_from(each)
            else:
                others.append(each)
        self._by_project[quota.project] = [*others, quota]
        return quota.shown(self._clock())

    def clear(self, project: str | None = None) -> None:
        """Forget the quotas of one project, or all."""
        if project is None:
            self._by_project.clear()
        else:
            self._by_project.pop(project, None)

    def all(self) -> list[dict[str, Any]]:
        """Give every quota as the admin path lists it."""
        now = self._clock()
        return [quota.shown(now) for quotas in self._by_project.values() for quota in quotas]

    def check(self, caller: Caller, model: str, *, service: str) -> None:
        """Raise a 429 when not even the smallest call has room, before anything is worked out for it."""
        if caller.project in self._by_project:
            self._refuse(self._of(caller, model), None, caller, model, service)

    def take(self, caller: Caller, model: str, load: Callable[[], Load], *, service: str) -> None:
        """Count a call in every quota that it draws on, or raise a 429 and count it in none."""
        if caller.project not in self._by_project:
            return
        quotas, amount, now = self._of(caller, model), load(), self._clock()
        self._refuse(quotas, amount, caller, model, service)
        for quota in quotas:
            quota.charge(amount, now)

    def _of(self, caller: Caller, model: str) -> list[Quota]:
        return [quota for quota in self._by_project[caller.project] if quota.matches(caller, model)]

    def _refuse(self, quotas: list[Quota], load: Load | None, caller: Caller, model: str, service: str) -> None:
        now, violations, wait = self._clock(), [], 0.0
        for quota in quotas:
            for name, limit, seconds in quota.exceeded(load, now):
                violations.append(Violation(*_NAMES[name], limit, model, caller.region))
                wait = max(wait, seconds)
        if violations:
            raise _refusal(violations, wait, service)


def _refusal(violations: list[Violation], wait_seconds: float, service: str) -> GeminiError:
    return errors.quotas_exceeded(violations, retry_delay_seconds=wait_seconds, service=service)
