"""What a declaration of a metric says."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """The three metric types used."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Who says it: each process of what it did, one housekeeper of what the database holds, or the supervisor."""

    PROCESSES = "processes"
    LEADER = "leader"
    SUPERVISOR = "supervisor"


Aggregation = Literal["livesum", "livemax", "livemin", "livemostrecent"]
"""How the gauges of the living processes become one; those of dead processes do not count."""

# From a local refusal (1 ms) to a long thinking answer (minutes).
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TICK_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
# Fine around 3 and 15 ms: what a call may be delayed by in the middle and at the worst.
ADDED_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One metric as it appears in the exposition, `_total` included."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    aggregation: Aggregation | None = None
    source: Source = Source.PROCESSES


def counter(name: str, meaning: str, *labels: str, source: Source = Source.PROCESSES) -> Declaration:
    """Declare a counter."""
    return Declaration(name=name, kind=Kind.COUNTER, meaning=meaning, labels=labels, source=source)


def gauge(name: str, meaning: str, aggregation: Aggregation, *labels: str) -> Declaration:
    """Declare a gauge that each process sets for itself."""
    return Declaration(name=name, kind=Kind.GAUGE, meaning=meaning, labels=labels, aggregation=aggregation)


def reading(name: str, meaning: str, *labels: str, source: Source = Source.LEADER) -> Declaration:
    """Declare a gauge of which one process says all values at once: those it no longer says are gone."""
    return Declaration(name=name, kind=Kind.GAUGE, meaning=meaning, labels=labels, source=source)


def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Declaration:
    """Declare a histogram; `buckets` are upper bounds, without the infinite one."""
    return Declaration(name=name, kind=Kind.HISTOGRAM, meaning=meaning, labels=labels, buckets=buckets)


def series_names(declaration: Declaration) -> tuple[str, ...]:
    """Return the names under which Prometheus stores one metric."""
    if declaration.kind is Kind.HISTOGRAM:
        return tuple(f"{declaration.name}_{part}" for part in ("bucket", "count", "sum"))
    return (declaration.name,)
