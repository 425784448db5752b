"""A rolling window of outcomes, kept in a few buckets of time so that a call costs the same whatever the traffic."""

from typing import NamedTuple


class Outcomes(NamedTuple):
    """Sums over the outcomes in a window."""

    calls: int
    failures: int
    seconds: float


class OutcomeWindow:
    """Counts calls and failures of the last `buckets` times `bucket_seconds`; constant memory."""

    __slots__ = ("_bucket_seconds", "_buckets", "_newest", "calls", "failures", "seconds")

    def __init__(self, *, bucket_seconds: float, buckets: int) -> None:
        self._bucket_seconds = bucket_seconds
        self._buckets = [Outcomes(0, 0, 0.0)] * buckets
        self._newest = 0
        self.calls = 0
        self.failures = 0
        self.seconds = 0.0

    def add(self, now: float, *, failed: bool, seconds: float) -> None:
        """Count one call that ended at `now` after `seconds`."""
        self._advance(now)
        place = self._newest % len(self._buckets)
        bucket = self._buckets[place]
        self._buckets[place] = Outcomes(bucket.calls + 1, bucket.failures + failed, bucket.seconds + seconds)
        self.calls += 1
        self.failures += failed
        self.seconds += seconds

    def sums(self, now: float) -> Outcomes:
        """Return the sums over the window that ends at `now`."""
        self._advance(now)
        return Outcomes(self.calls, self.failures, self.seconds)

    def clear(self) -> None:
        """Forget every outcome."""
        self._buckets = [Outcomes(0, 0, 0.0)] * len(self._buckets)
        self.calls, self.failures, self.seconds = 0, 0, 0.0

    def _advance(self, now: float) -> None:
        newest = int(now / self._bucket_seconds)
        if newest == self._newest:
            return
        for number in range(max(self._newest + 1, newest - len(self._buckets) + 1), newest + 1):
            self._drop(number % len(self._buckets))
        self._newest = max(newest, self._newest)

    def _drop(self, place: int) -> None:
        old = self._buckets[place]
        self.calls -= old.calls
        self.failures -= old.failures
        # A sum of floats drifts as its parts are taken off; an empty window is exactly nothing.
        self.seconds = self.seconds - old.seconds if self.calls else 0.0
        self._buckets[place] = Outcomes(0, 0, 0.0)
