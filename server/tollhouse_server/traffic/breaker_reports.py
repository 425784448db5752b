"""The section `breakers` of a process's report: what its breakers are, as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tollhouse_server.traffic.breakers import BreakerKey, BreakerSnapshot, Forced, State

SECTION = "breakers"


def section_of(breakers: Iterable[BreakerSnapshot]) -> list[dict[str, Any]]:
    """Return the section's value."""
    return [
        {
            "account": one.key.account_id,
            "region": one.key.region,
            "model": one.key.model,
            "state": one.state.name,
            "forced": one.forced.value if one.forced else None,
            "calls": one.calls,
            "failures": one.failures,
            "mean_seconds": round(one.mean_seconds, 6),
            "changed_seconds_ago": round(one.changed_seconds_ago, 3),
            "seconds_until_probe": one.seconds_until_probe,
        }
        for one in breakers
    ]


def breakers_of(section: Sequence[Mapping[str, Any]]) -> list[BreakerSnapshot]:
    """Return the breakers of a section that `section_of` wrote."""
    return [
        BreakerSnapshot(
            key=BreakerKey(one["account"], one["region"], one["model"]),
            state=State[one["state"]],
            forced=Forced(one["forced"]) if one["forced"] else None,
            calls=one["calls"],
            failures=one["failures"],
            mean_seconds=one["mean_seconds"],
            changed_seconds_ago=one["changed_seconds_ago"],
            seconds_until_probe=one["seconds_until_probe"],
        )
        for one in section
    ]
