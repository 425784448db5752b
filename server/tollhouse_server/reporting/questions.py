"""What is asked of the records, and what they answer."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from tollhouse_server.names import Scope
from tollhouse_server.reporting.periods import Day, Period
from tollhouse_server.reporting.sums import Dimension, Group, Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """A part of a tenant's rows: with one of `departments` on their way, of one of `projects`, or with one of `labels`.

    Departments and projects are ids, labels `key=value`; only what is split by label knows of these.
    """

    departments: tuple[str, ...]
    projects: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be added up, and by what it is split. `days` are the calendar days of the period, for DAY.

    `detailed` asks for cached, tool-use and thinking tokens too, which are read from each record's usage. `reach`
    leaves a part of the scope's rows.
    """

    scope: Scope
    period: Period
    dimensions: tuple[Dimension, ...] = ()
    days: tuple[Day, ...] = ()
    detailed: bool = False
    reach: Reach | None = None

    def undivided(self) -> "Question":
        """Return the same question without any split."""
        return replace(self, dimensions=(), days=())


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSums:
    """The whole, and its groups."""

    total: Sums
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a list of records. A tick books many at one moment, so the moment alone is none."""

    settled_at: datetime
    attempt_id: UUID
