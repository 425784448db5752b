"""Google's own counts of requests and tokens (Cloud Monitoring), held against the ledger's attempts. Pure.

Counts are not money: nothing is blocked or charged by them. They are the second witness when a bill differs: whether
calls went past Tollhouse, are on another day, or of unknown outcome.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

_DAY: Final = timedelta(days=1)


class CountReason(StrEnum):
    """What may have made two counts differ."""

    PROJECT_NOT_IN_LEDGER = "PROJECT_NOT_IN_LEDGER"
    NOT_IN_METRICS = "NOT_IN_METRICS"
    OTHER_DAY = "OTHER_DAY"
    NOT_COUNTED_REFUSALS = "NOT_COUNTED_REFUSALS"
    UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"
    MORE_IN_METRICS = "MORE_IN_METRICS"
    FEWER_IN_METRICS = "FEWER_IN_METRICS"
    TOKENS_ONLY = "TOKENS_ONLY"


class CountKey(NamedTuple):
    """What is counted together; the day is one of US Pacific time."""

    day: date
    project: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests and tokens of a key. Of attempts it is known how many Google refused, and how many ended unknown.

    `tokens` None means that they were not counted.
    """

    requests: int = 0
    tokens: int | None = None
    refused: int = 0
    unknown: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return both together."""
        known = [one for one in (self.tokens, other.tokens) if one is not None]
        return Counts(
            requests=self.requests + other.requests,
            tokens=sum(known) if known else None,
            refused=self.refused + other.refused,
            unknown=self.unknown + other.unknown,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CountDifference:
    """A key under which both count otherwise."""

    key: CountKey
    counted: Counts
    attempts: Counts
    reason: CountReason


def added_up(rows: Iterable[tuple[CountKey, Counts]]) -> dict[CountKey, Counts]:
    """Return counts by key: a file may have several rows of one, such as for methods."""
    found: dict[CountKey, Counts] = defaultdict(Counts)
    for key, counts in rows:
        found[key] = found[key].plus(counts)
    return dict(found)


def compare_counts(counted: dict[CountKey, Counts], attempts: dict[CountKey, Counts]) -> list[CountDifference]:
    """Return the keys under which Google's counts are not the ledger's, in order, each with what may have made it."""
    return list(_differences(counted, attempts))


def _differences(counted: dict[CountKey, Counts], attempts: dict[CountKey, Counts]) -> Iterator[CountDifference]:
    projects = {key.project for key in attempts}
    excess = {
        key: counted.get(key, Counts()).requests - attempts.get(key, Counts()).requests
        for key in counted.keys() | attempts.keys()
    }
    for key in sorted(excess):
        google, own = counted.get(key, Counts()), attempts.get(key, Counts())
        others_day = sum(excess.get(key._replace(day=key.day + step), 0) for step in (-_DAY, _DAY))
        reason = _reason(google, own, excess[key], others_day, is_known=key.project in projects)
        if reason is not None:
            yield CountDifference(key=key, counted=google, attempts=own, reason=reason)


def _reason(google: Counts, own: Counts, excess: int, others_day: int, *, is_known: bool) -> CountReason | None:
    if not excess:
        differs = google.tokens is not None and google.tokens != (own.tokens or 0) and not own.unknown
        return CountReason.TOKENS_ONLY if differs else None
    if not is_known:
        return CountReason.PROJECT_NOT_IN_LEDGER
    if excess + others_day == 0:
        return CountReason.OTHER_DAY
    return CountReason.MORE_IN_METRICS if excess > 0 else _why_fewer(google, own, -excess)


def _why_fewer(google: Counts, own: Counts, missing: int) -> CountReason:
    if missing <= own.refused:
        return CountReason.NOT_COUNTED_REFUSALS
    if missing <= own.refused + own.unknown:
        return CountReason.UNKNOWN_OUTCOME
    return CountReason.FEWER_IN_METRICS if google.requests else CountReason.NOT_IN_METRICS
