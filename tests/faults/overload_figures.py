"""What a phase under overload came to, by source, and what must hold of every refusal."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.drivers.referee import Finding
from tests.faults.overload_load import Call

_LATE_SHARE = 0.02
"""Of those served, who may hear it too late: calls do not all take the same time."""
_GRACE_SECONDS = 0.5
"""By how much a driver on a busy machine may hear later what was said in time."""
_TELLS_WHEN = frozenset({"OVERLOADED", "DEADLINE_TOO_SHORT", "UPSTREAM_EXHAUSTED", "TARGETS_UNHEALTHY"})


@dataclass(frozen=True, slots=True)
class Figures:
    """The calls of one source in one phase."""

    calls: Sequence[Call]
    seconds: float

    @property
    def served(self) -> list[float]:
        """How long those took that were served, in order."""
        return sorted(call.seconds or 0.0 for call in self.calls if not call.code)

    @property
    def refused(self) -> list[Call]:
        """Those that were not served."""
        return [call for call in self.calls if call.code]

    @property
    def rate(self) -> float:
        """Served a second."""
        return len(self.served) / self.seconds

    @property
    def share(self) -> float:
        """Which part was served."""
        return len(self.served) / max(1, len(self.calls))

    def at(self, part: float) -> float:
        """Return how long so many of the served took at the most, in seconds; infinity where none was served."""
        return _at(self.served, part)

    def shown(self) -> dict[str, Any]:
        """Return what is worth keeping."""
        waits = sorted(call.seconds or 0.0 for call in self.refused)
        delays = sorted(call.retry_seconds for call in self.refused if call.retry_seconds is not None)
        return {
            "offered_per_second": round(len(self.calls) / self.seconds, 1),
            "served_per_second": round(self.rate, 2),
            "served_percent": round(100 * self.share, 2),
            "p50_ms": _ms(self.at(0.5)),
            "p99_ms": _ms(self.at(0.99)),
            "refused": dict(Counter(f"{call.code} {call.reason}".strip() for call in self.refused)),
            "refused_after_ms": [_ms(_at(waits, 0.5)), _ms(_at(waits, 0.99))] if waits else None,
            "retry_seconds": [round(_at(delays, 0.5), 1), round(_at(delays, 1.0), 1)] if delays else None,
        }


def by_source(calls: Iterable[Call], seconds: float) -> dict[str, Figures]:
    """Return the figures of each source by its name."""
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.source.name, []).append(call)
    return {name: Figures(of_one, seconds) for name, of_one in found.items()}


def judge(phase: str, calls: Sequence[Call]) -> list[Finding]:
    """Return what must never be: waits past a deadline, refusals that do not say why or when to come back."""
    served = sum(not call.code for call in calls)
    unsaid = [call for call in calls if call.code not in ("", "HUNG_UP") and not call.reason]
    findings = []
    if len(unsaid) > _LATE_SHARE * (served + len(unsaid)):
        findings.append(Finding("calls ended without a word of ours", phase, f"{len(unsaid)} beside {served} served"))
    for call in calls:
        if (call.seconds or 0.0) > call.source.deadline_seconds + _GRACE_SECONDS:
            findings.append(Finding("somebody waited past his deadline", phase, f"{call.seconds} s"))
        if call.reason in _TELLS_WHEN and call.retry_seconds is None:
            findings.append(Finding("a refusal does not say when to come back", phase, call.reason))
    return findings


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("inf")


def _ms(seconds: float) -> int | None:
    return round(1000 * seconds) if seconds != float("inf") else None
