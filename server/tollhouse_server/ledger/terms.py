"""The ledger's vocabulary: what is asked for, what is held, how an attempt ends.

What a tick makes anew for every call is a named tuple, which takes a third of the time of a frozen dataclass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo


class Metric(StrEnum):
    """What a limit counts. COST is in nano-dollars, everything else a plain count.

    CONCURRENCY counts attempts in flight: it is held while a call runs and settles at nothing. `position` is where a
    metric stands in Amounts, -1 for CONCURRENCY, which has no place there.
    """

    position: int

    REQUESTS = "REQUESTS", 0
    INPUT_TOKENS = "INPUT_TOKENS", 1
    OUTPUT_TOKENS = "OUTPUT_TOKENS", 2
    IMAGES = "IMAGES", 3
    COST = "COST", 4
    CONCURRENCY = "CONCURRENCY", -1

    def __new__(cls, name: str, position: int = -1) -> "Metric":
        """Make a metric that knows its place; looking it up in a dict for every hold would cost more."""
        metric = str.__new__(cls, name)
        metric._value_ = name
        metric.position = position
        return metric


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


class SuspensePolicy(StrEnum):
    """At what an attempt of unknown outcome is booked until it is resolved.

    CEILING keeps a strict limit strict through any number of crashes. EXPECTED is what such calls mostly cost, VOID
    nothing: both are nearer to the bill, and may let a limit be passed.
    """

    CEILING = "CEILING"
    EXPECTED = "EXPECTED"
    VOID = "VOID"


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


class Amounts(NamedTuple):
    """One value for every metric, in the order of their positions: a ceiling, or what was really used."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    cost_nanos: int = 0

    def of(self, metric: Metric) -> int:
        """Return the amount that a limit on `metric` counts once a call has ended; it is in flight no more."""
        return 0 if metric.position < 0 else self[metric.position]

    def held_for(self, metric: Metric) -> int:
        """Return the amount that a limit on `metric` counts while a call of this ceiling is in flight."""
        return 1 if metric.position < 0 else self[metric.position]

    def plus(self, other: "Amounts") -> "Amounts":
        """Return the sum, metric by metric."""
        return Amounts(*(one + another for one, another in zip(self, other, strict=True)))

    def minus(self, other: "Amounts") -> "Amounts":
        """Return the signed difference, metric by metric."""
        return Amounts(*(one - another for one, another in zip(self, other, strict=True)))


NOTHING = Amounts()

WHOLE = 1_000_000


class Shares(NamedTuple):
    """How much of its ceiling a call will probably use, metric by metric, in millionths."""

    requests: int = WHOLE
    input_tokens: int = WHOLE
    output_tokens: int = WHOLE
    images: int = WHOLE
    cost_nanos: int = WHOLE

    def of(self, ceiling: Amounts) -> Amounts:
        """Return the amounts; rounded up, so that what is expected of many small calls does not vanish."""
        return Amounts(*(-(-most * share // WHOLE) for most, share in zip(ceiling, self, strict=True)))


EVERYTHING = Shares()
"""What is expected of calls that nobody knows yet: their worst case."""


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


class Shrunk(NamedTuple):
    """A call made smaller: its new ceiling, and the `maxOutputTokens` that makes it true."""

    ceiling: Amounts
    max_output_tokens: int


class CallTerms(NamedTuple):
    """One upstream attempt as it asks to be admitted.

    `ceiling` is its worst case. `first` is True for a call's first attempt: only that one claims the request id.
    `shrink(cost_nanos, output_tokens)` returns the largest call that fits what the limits still afford (None: no limit
    counts it), or None if that is not worth sending; without it the call is admitted whole or not at all.
    `correlation_id` is that of the RPC.
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
    shrink: Callable[[int | None, int | None], Shrunk | None] | None = None
    correlation_id: str = ""


class CounterKey(NamedTuple):
    """The key of a counter; `window_start` is in seconds since 1970, as all windows begin on whole seconds."""

    tenant_id: str
    limit_id: int
    window_start: int


class Hold(NamedTuple):
    """A part of one counter that an attempt holds: its worst case, and what it will probably use (ELASTIC only)."""

    key: CounterKey
    metric: Metric
    amount: int
    expected: int = 0


class Reservation(NamedTuple):
    """An admitted attempt: durable before the first byte goes upstream. `holds_text` is its holds as JSON,
    `worker_epoch` the process that sent it. `dispatched_at` is by the database's clock; where a tick has not looked, by
    this process's reading of it, in the right minute.

    `terms.ceiling` is what was granted. `max_output_tokens` says what the request must carry where the ledger made the
    call smaller than it asked, and `clamped_by` which limit did. `top_ups` counts the times that holds were added.
    """

    terms: CallTerms
    holds: tuple[Hold, ...]
    holds_text: str
    dispatched_at: datetime
    worker_epoch: int
    shares: Shares = EVERYTHING
    max_output_tokens: int | None = None
    clamped_by: str = ""
    top_ups: int = 0

    @property
    def expected(self) -> Amounts:
        """Return what the attempt will probably use."""
        return self.shares.of(self.terms.ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How an attempt ended. `usage` and `lines` are JSON texts; `outcome` is one word for people and reports.

    A colon and text from outside may follow the word.
    """

    kind: RecordKind
    actual: Amounts
    outcome: str
    usage: str = "{}"
    lines: str = "[]"
    response_id: str = ""

    @property
    def outcome_word(self) -> str:
        """Return the outcome without text."""
        return self.outcome.partition(":")[0]

    def without_texts(self) -> "Settlement":
        """Return the same amounts without what came from outside as text."""
        return replace(self, usage="{}", response_id="", outcome=f"{self.kind}_TEXTS_LOST")


NOT_SENT = Settlement(kind=RecordKind.REFUSED, actual=NOTHING, outcome="NOT_SENT")
"""How an attempt ends that was admitted but never sent."""


def suspended(
    reservation: Reservation, cause: str = "WORKER_DIED", *, policy: SuspensePolicy = SuspensePolicy.CEILING
) -> Settlement:
    """Return the settlement of an attempt whose outcome is unknown, booked by `policy` until it is resolved."""
    booked = {
        SuspensePolicy.CEILING: reservation.terms.ceiling,
        SuspensePolicy.EXPECTED: reservation.expected,
        SuspensePolicy.VOID: NOTHING,
    }
    return Settlement(kind=RecordKind.SUSPENSE, actual=booked[policy], outcome=cause)


class Increase(NamedTuple):
    """A temporary increase of a limit; `starts_at` None means from its approval on."""

    starts_at: datetime | None
    expires_at: datetime
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LimitDefinition:
    """A limit as the tick needs it."""

    tenant_id: str
    scope: str
    limit_id: int
    name: str
    metric: Metric
    window: Window
    selector: str
    mode: Mode
    amount: int
    overshoot: int
    increases: tuple[Increase, ...]
    calendar: Calendar

    def amount_at(self, now: datetime) -> int:
        """Return the amount in force: the limit's own and every increase that has begun and not expired."""
        if not self.increases:
            return self.amount
        in_force = (i for i in self.increases if (i.starts_at is None or i.starts_at <= now) and now < i.expires_at)
        return self.amount + sum(increase.amount for increase in in_force)
