"""Metrics built from their declarations, with the children of labels cached and bounded."""

import re
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tollhouse_server.telemetry.declarations import Declaration

M = TypeVar("M", Counter, Gauge, Histogram)

MOST_SERIES = 1000
"""Label combinations kept per metric and process; one more is counted under `other`."""

OTHER = "other"
# What a catalogue name, an enum or a gRPC method looks like; sentences and resource names as labels would never end.
_LABEL = re.compile(r"(?=.{1,100}\Z)(?:[A-Za-z0-9][A-Za-z0-9._:-]*|/[A-Za-z0-9._]+/[A-Za-z0-9]+)")


class Family(dict[tuple[str, ...], M], Generic[M]):
    """The children of one metric by label values: `family["/rpc", "OK"].inc()` is one dict look-up."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, values: tuple[str, ...]) -> M:
        bounded = tuple(value if _LABEL.fullmatch(value) else OTHER for value in values)
        if len(self) >= MOST_SERIES:
            bounded = (OTHER,) * len(values)
        child: M = self._metric.labels(*bounded)
        if len(self) < MOST_SERIES:
            self[values] = child
        return child


def counter(declaration: Declaration, registry: CollectorRegistry) -> Family[Counter]:
    """Build a counter that has labels."""
    return Family(Counter(declaration.name, declaration.meaning, declaration.labels, registry=registry))


def lone_counter(declaration: Declaration, registry: CollectorRegistry) -> Counter:
    """Build a counter that has no labels, and so is 0 from the beginning."""
    return Counter(declaration.name, declaration.meaning, registry=registry)


def histogram(declaration: Declaration, registry: CollectorRegistry) -> Histogram:
    """Build a histogram; wrap it in a Family when it has labels."""
    return Histogram(
        declaration.name, declaration.meaning, declaration.labels, registry=registry, buckets=declaration.buckets
    )


def gauge(declaration: Declaration, registry: CollectorRegistry) -> Gauge:
    """Build a gauge; wrap it in a Family when it has labels."""
    if declaration.aggregation is None:
        raise ValueError(f"gauge {declaration.name} does not say how processes are aggregated")
    return Gauge(
        declaration.name,
        declaration.meaning,
        declaration.labels,
        registry=registry,
        multiprocess_mode=declaration.aggregation,
    )
