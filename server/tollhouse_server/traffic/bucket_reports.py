"""What processes tell each other of their buckets, and the shares that follow from it.

The section `buckets` of a report is a list, an entry for each account and model (empty: all models) in use:
    {"account", "model", "cooling_seconds", "used": {metric: amount}, "leaving": {metric: amount},
     "wanted": {metric: amount}, "peak": calls, "limits": {metric: amount}, "shares": {metric: amount},
     "learned": {metric: [amount, age in seconds]},
     "takes": calls at a time that were learned, or null}
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.buckets import Bucket, Buckets
from tollhouse_server.traffic.caps import Cap, Caps
from tollhouse_server.traffic.congestion import Learned
from tollhouse_server.traffic.report_store import DayCount, Exchange, HeardReport
from tollhouse_server.traffic.shares import Claim, allotments, share_of
from tollhouse_server.traffic.usage_window import DAY, IN_FLIGHT, NAMES, REQUESTS, WINDOW_SECONDS

SECTION = "buckets"

_DAY_MINUTES_AHEAD = 30
"""What a process is thought to want of a day's requests: those of so many minutes like the last."""

Key = tuple[str, str]
Entry = Mapping[str, Any]


class BucketReports:
    """The buckets' part in reports. It is the reports' `DayTally`, too."""

    def __init__(self, buckets: Buckets, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = buckets
        self._metrics = metrics
        self._clock = clock
        self._sent: dict[tuple[str, str, str], int] = {}
        self._elsewhere_today: dict[Key, int] = {}

    # --- what we say ---

    def section(self) -> list[dict[str, Any]]:
        """Return the section `buckets`, and set the gauges that say the same."""
        self._buckets.apply_time()
        now = self._clock()
        for bucket in self._buckets:
            bucket.demand.pass_time(now)
        entries = []
        for account_id, model, caps in self._buckets.parts():
            caps.window.advance(int(now))
            caps.window.next_peak()
            if caps.in_force or any(caps.window.sums):
                entries.append(self._entry(account_id, model, caps, now))
        return entries

    def _entry(self, account_id: str, model: str, caps: Caps, now: float) -> dict[str, Any]:
        cooling_seconds = self._cooling_seconds(account_id, model, now)
        self._tell_metrics(account_id, model, caps, cooling_seconds)
        return {
            "account": account_id,
            "model": model,
            "cooling_seconds": cooling_seconds,
            "used": _named(caps.window.sums),
            "leaving": _named(caps.window.leaving()),
            "peak": caps.window.peak,
            "wanted": _named(self._wanted(account_id, model)),
            "limits": {NAMES[cap.metric]: cap.limit for cap in caps.in_force},
            "shares": {NAMES[cap.metric]: cap.share for cap in caps.in_force},
            "learned": {NAMES[metric]: [amount, now - at] for metric, amount, at in caps.learned()},
            "takes": _learned(self._buckets.bucket(account_id, model)).limit if model else None,
        }

    def _tell_metrics(self, account_id: str, model: str, caps: Caps, cooling_seconds: float) -> None:
        label = model or "all"
        for cap in caps.in_force:
            self._metrics.account_use(
                account=account_id,
                model=label,
                metric=NAMES[cap.metric],
                used=caps.window.sums[cap.metric],
                limit=cap.limit,
            )
        if model:
            self._metrics.account_cooling(account=account_id, model=model, seconds=cooling_seconds)

    def _cooling_seconds(self, account_id: str, model: str, now: float) -> float:
        if not model:
            return 0.0
        return max(0.0, self._buckets.bucket(account_id, model).cooling_until - now)

    def _wanted(self, account_id: str, model: str) -> list[int]:
        """Return what calls would take that wait, or went without a place of late."""
        if model:
            return self._buckets.bucket(account_id, model).wanted
        wanted = [bucket.wanted for bucket in self._buckets if bucket.account_id == account_id]
        return [sum(column) for column in zip(*wanted, strict=True)] or [0] * len(NAMES)

    # --- the day ---

    @property
    def today(self) -> str:
        """Return the day that is counted now."""
        return self._buckets.days.today()

    def unsent(self) -> Sequence[DayCount]:
        """Return the requests counted since the last report that arrived."""
        today, counts = self.today, []
        for account_id, model, caps in self._buckets.parts():
            caps.window.advance(int(self._clock()))
            more = caps.window.sums[DAY] - self._sent.get((today, account_id, model), 0)
            if more:
                counts.append(DayCount(day=today, account_id=account_id, model=model, requests=more))
        return counts

    def sent(self, counts: Sequence[DayCount], exchange: Exchange) -> None:
        """Take note of what is in the database now, and of what others have counted there."""
        today = self.today
        self._elsewhere_today = {
            key: requests - self._sent.get((today, *key), 0) for key, requests in exchange.requests_today.items()
        }
        self._sent = {key: requests for key, requests in self._sent.items() if key[0] == today}
        for count in counts:
            key = (count.day, count.account_id, count.model)
            self._sent[key] = self._sent.get(key, 0) + count.requests

    # --- what we hear ---

    def heard(self, exchange: Exchange) -> None:
        """Learn what others learned, and take the shares that follow from what all have used and want."""
        now = self._clock()
        entries: dict[Key, list[tuple[HeardReport, Entry]]] = {}
        for report in exchange.reports:
            for entry in report.sections.get(SECTION, ()):
                entries.setdefault((entry["account"], entry["model"]), []).append((report, entry))
        for key, said in entries.items():
            if self._buckets.knows(key[0]):
                self._learn(key, said, now)
        for bucket in self._buckets:
            others = list(_learned_elsewhere(entries.get((bucket.account_id, bucket.model), ())))
            bucket.congestion.heard(_learned(bucket), others)
        for account_id, model, caps in self._buckets.parts():
            said = entries.get((account_id, model), [])
            for cap in caps.in_force:
                self._share((account_id, model), caps, cap, said, exchange.process_key)

    def _learn(self, key: Key, said: Sequence[tuple[HeardReport, Entry]], now: float) -> None:
        """Cool down where others do, and take the limits that they were told."""
        for report, entry in said:
            cooling_until = now + entry["cooling_seconds"] - report.age_seconds
            if entry["cooling_seconds"] and cooling_until > now:
                self._buckets.cool(*key, until=cooling_until)
            for metric, (amount, age_seconds) in entry["learned"].items():
                learned_at = now - age_seconds - report.age_seconds
                self._buckets.caps(*key).learn(NAMES.index(metric), amount, learned_at=learned_at, now=now)

    def _share(
        self, key: Key, caps: Caps, cap: Cap, said: Sequence[tuple[HeardReport, Entry]], process_key: str
    ) -> None:
        claims = dict(_claims(cap.metric, said))
        used_by_living = int(sum(claim.used for claim in claims.values()))
        if cap.metric == DAY:
            # Who has ended today is seen in the day's count alone.
            gone = max(0, self._elsewhere_today.get(key, 0) - used_by_living)
        else:
            gone = _used_by_gone(cap.metric, said)
        cap.elsewhere = used_by_living + gone
        cap.processes = 1 + len(claims)
        window, metric = caps.window, cap.metric
        demand = _demand(metric, window.sums, self._wanted(*key), window.peak)
        limit = max(0, cap.limit - gone)
        own = Claim(window.sums[metric], demand, cap.share, window.leaving()[metric])
        allotted = allotments({**claims, process_key: own}, limit)
        cap.share = share_of(process_key, allotted[process_key], claims, limit)


def _claims(metric: int, said: Sequence[tuple[HeardReport, Entry]]) -> Iterator[tuple[str, Claim]]:
    """Yield what other living processes claim."""
    name = NAMES[metric]
    for report, entry in said:
        if report.is_living:
            used, leaving = entry["used"].get(name, 0), entry.get("leaving", {}).get(name, 0)
            demand = _demand(metric, _amounts(entry["used"]), _amounts(entry["wanted"]), entry.get("peak", 0))
            yield report.process_key, Claim(used, demand, entry["shares"].get(name, used), leaving)


def _learned(bucket: Bucket) -> Learned:
    """Return what this process has learned of an upstream that does not say what it takes."""
    window = bucket.caps.window
    return bucket.congestion.learned(_demand(IN_FLIGHT, window.sums, bucket.wanted, window.peak))


def _learned_elsewhere(said: Sequence[tuple[HeardReport, Entry]]) -> Iterator[Learned]:
    """Yield what other living processes have learned of it; servers of before 22 November 2026 do not say it."""
    for report, entry in said:
        if report.is_living:
            demand = _demand(IN_FLIGHT, _amounts(entry["used"]), _amounts(entry["wanted"]), entry.get("peak", 0))
            yield Learned(entry.get("takes"), demand)


def _used_by_gone(metric: int, said: Sequence[tuple[HeardReport, Entry]]) -> int:
    """Return what those have used that are gone, each until the window that it was in has passed."""
    name, kept_seconds = NAMES[metric], WINDOW_SECONDS[metric] + 1.0
    gone = (entry for report, entry in said if not report.is_living and report.age_seconds <= kept_seconds)
    return sum(entry["used"].get(name, 0) for entry in gone)


def _demand(metric: int, used: Sequence[int], wanted: Sequence[int], peak: int) -> int:
    """Return what a process wants in all: as much as it used, and what waits or went without a place."""
    if metric == DAY:
        return used[DAY] + max(wanted[DAY], used[REQUESTS] * _DAY_MINUTES_AHEAD)
    if metric == IN_FLIGHT:
        return peak + wanted[IN_FLIGHT]
    return used[metric] + wanted[metric]


def _named(amounts: Sequence[int]) -> dict[str, int]:
    return {metric: amount for metric, amount in zip(NAMES, amounts, strict=True) if amount}


def _amounts(named: Mapping[str, int]) -> list[int]:
    return [named.get(metric, 0) for metric in NAMES]
