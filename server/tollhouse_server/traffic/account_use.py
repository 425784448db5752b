"""What all processes together use of an account, and what is left of its limits; and how many calls wait.

Read from processes' reports: section "buckets" is as in `bucket_reports`, section "queue" has `waiting`, calls by
priority.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import Account, AccountMetric
from tollhouse_server.traffic.bucket_reports import SECTION as BUCKETS
from tollhouse_server.traffic.report_store import ProcessReport

QUEUE = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRoom:
    """A limit of an account and what is used of it; without a model it is over all models."""

    metric: AccountMetric
    model: str
    limit: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUse:
    """What calls to an account and model meet: limits, calls in flight, and until when a 429 keeps calls away."""

    head_rooms: Sequence[HeadRoom] = ()
    in_flight: int = 0
    cooling_until: datetime | None = None


def use_of(account: Account, model: str, reports: Iterable[ProcessReport]) -> AccountUse:
    """Return what all processes use of an account for one model, and over all models where it has such limits."""
    own, over_all = _Sums(account, model), _Sums(account, "")
    for report in reports:
        for bucket in report.sections.get(BUCKETS, ()):
            if bucket["account"] == account.account_id and bucket["model"] in (model, ""):
                (own if bucket["model"] else over_all).add(bucket, report.reported_at)
    return AccountUse(
        head_rooms=(*own.head_rooms(), *over_all.head_rooms()),
        in_flight=own.used[AccountMetric.CONCURRENT_CALLS],
        cooling_until=own.cooling_until,
    )


def waiting_calls(reports: Iterable[ProcessReport]) -> Mapping[Priority, int]:
    """Return how many calls wait, by priority."""
    waiting: Counter[Priority] = Counter()
    for report in reports:
        for name, count in report.sections.get(QUEUE, {}).get("waiting", {}).items():
            waiting[Priority[name]] += count
    return waiting


class _Sums:
    """The use of an account for a model by several processes. A limit that one of them has learned holds for all."""

    def __init__(self, account: Account, model: str) -> None:
        self._model = model
        self._limits = {limit.metric: limit.amount for limit in account.limits if limit.model == model}
        self.used: Counter[AccountMetric] = Counter()
        self.cooling_until: datetime | None = None

    def add(self, bucket: Mapping[str, Any], reported_at: datetime) -> None:
        """Add what one process reports."""
        for name, amount in bucket["used"].items():
            self.used[AccountMetric(name)] += amount
        for name, amount in bucket["limits"].items():
            metric = AccountMetric(name)
            self._limits[metric] = min(amount, self._limits.get(metric, amount))
        if bucket["cooling_seconds"] > 0:
            until = reported_at + timedelta(seconds=bucket["cooling_seconds"])
            self.cooling_until = max(until, self.cooling_until or until)

    def head_rooms(self) -> Iterator[HeadRoom]:
        """Yield every limit with its use, in the order of the metrics."""
        for metric in AccountMetric:
            if (limit := self._limits.get(metric)) is not None:
                yield HeadRoom(metric=metric, model=self._model, limit=limit, used=self.used[metric])
