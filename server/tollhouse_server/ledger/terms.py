"""The ledger's vocabulary: what is asked for, what is held, how an attempt ends."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo


class Metric(StrEnum):
    """What a limit counts. COST is in nano-dollars, everything else a plain count.

    CONCURRENCY counts attempts in flight: it is held while a call runs and settles at nothing.
    """

    REQUESTS = "REQUESTS"
    INPUT_TOKENS = "INPUT_TOKENS"
    OUTPUT_TOKENS = "OUTPUT_TOKENS"
    IMAGES = "IMAGES"
    COST = "COST"
    CONCURRENCY = "CONCURRENCY"


class Window(StrEnum):
    """The stretch of time over which a limit counts; days and months are cut in the tenant's time zone.

    ROLLING_10_MINUTES is the last ten minutes and the minute that runs, counted minute by minute. CONCURRENCY has
    TOTAL.
    """

    MINUTE = "MINUTE"
    ROLLING_10_MINUTES = "ROLLING_10_MINUTES"
    HOUR = "HOUR"
    DAY = "DAY"
    MONTH = "MONTH"
    FISCAL_MONTH = "FISCAL_MONTH"
    TOTAL = "TOTAL"


class Mode(StrEnum):
    """How hard a limit is.

    STRICT holds the worst case of every call and is never passed. ELASTIC holds what a call will probably use, and is
    never passed by more than its overshoot. SOFT refuses nothing; it counts and raises alerts.
    """

    STRICT = "STRICT"
    ELASTIC = "ELASTIC"
    SOFT = "SOFT"


@dataclass(frozen=True, slots=True)
class Calendar:
    """A tenant's calendar: his time zone, and the day of the month (1 to 28) on which his fiscal months begin."""

    zone: ZoneInfo
    fiscal_month_start_day: int = 1


class RecordKind(StrEnum):
    """How an attempt ended: charged as reported, known to be free, unknown, or a later correction."""

    SETTLED = "SETTLED"
    REFUSED = "REFUSED"
    SUSPENSE = "SUSPENSE"
    ADJUSTMENT = "ADJUSTMENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """One value for every metric: a ceiling, or what was really used."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    cost_nanos: int = 0
    concurrency: int = 0

    def of(self, metric: Metric) -> int:
        """Return the amount that a limit on `metric` counts."""
        match metric:
            case Metric.REQUESTS:
                return self.requests
            case Metric.INPUT_TOKENS:
                return self.input_tokens
            case Metric.OUTPUT_TOKENS:
                return self.output_tokens
            case Metric.IMAGES:
                return self.images
            case Metric.COST:
                return self.cost_nanos
            case Metric.CONCURRENCY:
                return self.concurrency

    def __sub__(self, other: "Amounts") -> "Amounts":
        return Amounts(
            requests=self.requests - other.requests,
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
            images=self.images - other.images,
            cost_nanos=self.cost_nanos - other.cost_nanos,
            concurrency=self.concurrency - other.concurrency,
        )


NOTHING = Amounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a call is booked: a project, the departments above it from root to leaf, and whose credential it was.

    `credential_name` is the credential's resource name, whose own project may be another one.
    """

    tenant_id: str
    department_path: tuple[str, ...]
    project_id: str
    credential_id: str
    credential_name: str
    principal_id: str

    @property
    def project_name(self) -> str:
        """Return the resource name of the project."""
        return f"tenants/{self.tenant_id}/departments/{self.department_path[-1]}/projects/{self.project_id}"

    def limit_scopes(self) -> tuple[str, ...]:
        """Return the scope names whose limits apply, the narrowest first."""
        tenant = f"tenants/{self.tenant_id}"
        departments = [f"{tenant}/departments/{department}" for department in self.department_path]
        return (self.credential_name, self.project_name, *reversed(departments), tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """One upstream attempt as it asks to be admitted.

    `ceiling` is its worst case. `first` is True for a call's first attempt: only that one claims the request id.
    """

    attempt_id: UUID
    request_id: UUID
    fingerprint: bytes
    first: bool
    scope: Scope
    method: str
    tier: str
    model: str
    account_id: str
    labels: Mapping[str, str]
    price_version: int
    ceiling: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A part of one counter that an attempt holds."""

    limit_id: int
    window_start: datetime
    metric: Metric
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An admitted attempt: durable before the first byte goes upstream."""

    terms: CallTerms
    holds: tuple[Hold, ...]
    dispatched_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How an attempt ended. `usage` and `lines` are JSON texts; `outcome` is one word for people and reports."""

    kind: RecordKind
    actual: Amounts
    outcome: str
    usage: str = "{}"
    lines: str = "[]"
    response_id: str = ""

    def without_texts(self) -> "Settlement":
        """Return the same amounts without what came from outside as text."""
        return replace(self, usage="{}", response_id="", outcome=f"{self.kind}_TEXTS_LOST")


NOT_SENT = Settlement(kind=RecordKind.REFUSED, actual=NOTHING, outcome="NOT_SENT")
"""How an attempt ends that was admitted but never sent."""

CounterKey: TypeAlias = tuple[str, int, datetime]
"""(tenant_id, limit_id, window_start): the primary key of a counter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDefinition:
    """A limit as the tick needs it."""

    tenant_id: str
    scope: str
    limit_id: int
    name: str
    metric: Metric
    window: Window
    selector: str
    amount: int
    calendar: Calendar
