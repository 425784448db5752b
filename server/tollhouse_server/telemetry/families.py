"""Metrics built from their declarations, with the children of labels cached and bounded."""

import re
from bisect import bisect_left
from collections.abc import Mapping
from typing import Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge

from tollhouse_server.telemetry.declarations import Declaration
from tollhouse_server.telemetry.redaction import redacted

MOST_SERIES = 1000
"""Label combinations kept per counter or gauge and process; one more is counted under `other`."""

MOST_SAMPLES = 6000
"""Samples kept per histogram and process: each combination has one for each bucket, and three. Enough for all RPCs."""

OTHER = "other"
# What a catalogue name, an enum or a gRPC method looks like; sentences and resource names as labels would never end.
_LABEL = re.compile(r"(?=.{1,100}\Z)(?:[A-Za-z0-9][A-Za-z0-9._:-]*|/[A-Za-z0-9._]+/[A-Za-z0-9]+)")


class Counter(prometheus_client.Counter):
    """A counter that only makes sure that it rises: of what has labels a family's children are counted."""

    def inc(self, amount: float = 1, exemplar: Mapping[str, str] | None = None) -> None:  # noqa: ARG002
        """Count. Exemplars are kept elsewhere (`exemplars.py`)."""
        if amount < 0:
            raise ValueError("a counter only rises")
        self._value.inc(amount)


class Histogram(prometheus_client.Histogram):
    """A histogram that is not asked at each count whether it can count, and finds a bucket by halves."""

    def observe(self, amount: float, exemplar: Mapping[str, str] | None = None) -> None:  # noqa: ARG002
        """Count what took so long. Exemplars are kept elsewhere (`exemplars.py`)."""
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)


M = TypeVar("M", Counter, Gauge, Histogram)


class Family(dict[tuple[str, ...], M], Generic[M]):
    """The children of one metric by label values: `family["/rpc", "OK"].inc()` is one dict look-up."""

    def __init__(self, metric: M, declaration: Declaration) -> None:
        super().__init__()
        self._metric: M = metric
        self.label_names = declaration.labels
        buckets = len(declaration.buckets)
        self.most_series = MOST_SAMPLES // (buckets + 3) if buckets else MOST_SERIES

    def __missing__(self, values: tuple[str, ...]) -> M:
        bounded = tuple(value if _is_label(value) else OTHER for value in values)
        if bounded != values:
            # Not kept under what it is not: such values would take the place of good ones.
            return self[bounded]
        if len(self) >= self.most_series:
            return self._metric.labels(*(OTHER,) * len(values))
        child: M = self._metric.labels(*values)
        self[values] = child
        return child

    def begin(self, *values: str) -> None:
        """Show 0 from now on: only after that is what is counted first a rise, as Prometheus' `increase` sees it."""
        _ = self[values]


def _is_label(value: str) -> bool:
    # What looks like a key is none, whatever else it looks like; asked once for each value that is good.
    return _LABEL.fullmatch(value) is not None and redacted(value) == value


def counter(declaration: Declaration, registry: CollectorRegistry) -> Family[Counter]:
    """Build a counter that has labels."""
    metric = Counter(declaration.name, declaration.meaning, declaration.labels, registry=registry)
    return Family(metric, declaration)


def lone_counter(declaration: Declaration, registry: CollectorRegistry) -> Counter:
    """Build a counter that has no labels, and so is 0 from the beginning."""
    return Counter(declaration.name, declaration.meaning, registry=registry)


def histogram(declaration: Declaration, registry: CollectorRegistry) -> Histogram:
    """Build a histogram that has no labels."""
    return Histogram(
        declaration.name, declaration.meaning, declaration.labels, registry=registry, buckets=declaration.buckets
    )


def gauge(declaration: Declaration, registry: CollectorRegistry) -> Gauge:
    """Build a gauge that has no labels."""
    if declaration.aggregation is None:
        raise ValueError(f"gauge {declaration.name} does not say how processes are aggregated")
    return Gauge(
        declaration.name,
        declaration.meaning,
        declaration.labels,
        registry=registry,
        multiprocess_mode=declaration.aggregation,
    )


def gauges(declaration: Declaration, registry: CollectorRegistry) -> Family[Gauge]:
    """Build a gauge that has labels."""
    return Family(gauge(declaration, registry), declaration)


def histograms(declaration: Declaration, registry: CollectorRegistry) -> Family[Histogram]:
    """Build a histogram that has labels."""
    return Family(histogram(declaration, registry), declaration)
