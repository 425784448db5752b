"""What all processes together see of a breaker; each has its own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tollhouse_server.traffic.breakers import BreakerKey, BreakerSnapshot, Forced, State, effective, order_for


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOverview:
    """One breaker over all processes; `state` is the worst, `probe_at` the first moment at which one tries again."""

    key: BreakerKey
    state: State
    is_forced: bool
    processes: int = 0
    open_processes: int = 0
    half_open_processes: int = 0
    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    changed_at: datetime | None = None
    probe_at: datetime | None = None

    @property
    def is_troubled(self) -> bool:
        """Tell whether somebody should look at it."""
        return self.is_forced or self.state is not State.CLOSED


def overview_of(
    reports: Iterable[tuple[datetime, Iterable[BreakerSnapshot]]],
    *,
    orders: Mapping[BreakerKey, Forced],
    known: Iterable[BreakerKey],
) -> dict[BreakerKey, BreakerOverview]:
    """Return every breaker that is in a report, and of those `known` besides the ones that an order holds.

    Args:
        reports: of each living process the moment of its report, and its breakers.
        orders: what operators have ordered.
        known: keys of targets, called or not.
    """
    seen: dict[BreakerKey, list[tuple[datetime, BreakerSnapshot]]] = {}
    for reported_at, breakers in reports:
        for one in breakers:
            seen.setdefault(one.key, []).append((reported_at, one))
    found = {key: _joined(key, each) for key, each in seen.items()}
    for key in known:
        if key not in found and (forced := order_for(key, orders)) is not None:
            found[key] = BreakerOverview(key=key, state=effective(State.CLOSED, forced), is_forced=True)
    return dict(sorted(found.items()))


def _joined(key: BreakerKey, seen: list[tuple[datetime, BreakerSnapshot]]) -> BreakerOverview:
    breakers = [one for _, one in seen]
    states = [one.state for one in breakers]
    probes = [
        at + timedelta(seconds=one.seconds_until_probe)
        for at, one in seen
        if one.state is not State.CLOSED and one.seconds_until_probe is not None
    ]
    return BreakerOverview(
        key=key,
        state=max(states),
        is_forced=any(one.forced for one in breakers),
        processes=len(breakers),
        open_processes=states.count(State.OPEN),
        half_open_processes=states.count(State.HALF_OPEN),
        calls=sum(one.calls for one in breakers),
        failures=sum(one.failures for one in breakers),
        seconds=sum(one.mean_seconds * one.calls for one in breakers),
        changed_at=max(at - timedelta(seconds=one.changed_seconds_ago) for at, one in seen),
        probe_at=min(probes, default=None),
    )
