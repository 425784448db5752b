"""What happened between two looks at a server's counters, per second."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tollhouse.admin.v1 import operations_pb2 as pb

_GENERATION = "GenerationService."


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcRate:
    """What happened to one RPC; a quantile is None where no call ended."""

    rpc: str
    calls_per_second: float
    errors_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What happened in `seconds`. Quantiles are those of generation, the calls that people wait for."""

    seconds: float
    calls_per_second: float
    errors_per_second: float
    tokens_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None
    rpcs: Sequence[RpcRate]
    refusals_per_second: Sequence[tuple[str, float]]


@dataclass(slots=True)
class RateMeter:
    """Remembers the counters of each server it was shown, since a name may stand for several of them."""

    _before: dict[str, pb.ServerCounters] = field(default_factory=dict)
    rates: Rates | None = None

    def show(self, counters: pb.ServerCounters) -> None:
        """Work the rates out anew if these counters are newer than the last ones of their server."""
        before = self._before.get(counters.server_id)
        if before is not None and counters.read_time.ToNanoseconds() <= before.read_time.ToNanoseconds():
            return
        self._before[counters.server_id] = counters
        self.rates = rates_between(before, counters) if before is not None else self.rates


def rates_between(before: pb.ServerCounters, after: pb.ServerCounters) -> Rates:
    """Return what one server counted between two looks; RPCs of which no call ended are left out."""
    seconds = (after.read_time.ToNanoseconds() - before.read_time.ToNanoseconds()) / 1e9
    earlier = {one.rpc: one for one in before.rpcs}
    changes = [_change(earlier.get(one.rpc, pb.RpcCounters()), one) for one in after.rpcs]
    ended = [one for one in changes if one.ok_count + one.error_count]
    bounds = list(after.duration_bounds_seconds)
    generation = _summed(one.duration_counts for one in ended if one.rpc.startswith(_GENERATION))
    refused = {one.reason: one.count for one in before.reasons}
    refusals = [(one.reason, (one.count - refused.get(one.reason, 0)) / seconds) for one in after.reasons]
    return Rates(
        seconds=seconds,
        calls_per_second=sum(one.ok_count + one.error_count for one in ended) / seconds,
        errors_per_second=sum(one.error_count for one in ended) / seconds,
        tokens_per_second=(after.token_count - before.token_count) / seconds,
        p50_seconds=quantile(0.5, generation, bounds),
        p99_seconds=quantile(0.99, generation, bounds),
        rpcs=[_rpc_rate(one, seconds, bounds) for one in ended],
        refusals_per_second=sorted(((reason, rate) for reason, rate in refusals if rate > 0), key=lambda one: -one[1]),
    )


def _change(before: pb.RpcCounters, after: pb.RpcCounters) -> pb.RpcCounters:
    counts = list(before.duration_counts) or [0] * len(after.duration_counts)
    return pb.RpcCounters(
        rpc=after.rpc,
        ok_count=after.ok_count - before.ok_count,
        error_count=after.error_count - before.error_count,
        duration_counts=[new - old for old, new in zip(counts, after.duration_counts, strict=True)],
    )


def _rpc_rate(change: pb.RpcCounters, seconds: float, bounds: Sequence[float]) -> RpcRate:
    return RpcRate(
        rpc=change.rpc,
        calls_per_second=(change.ok_count + change.error_count) / seconds,
        errors_per_second=change.error_count / seconds,
        p50_seconds=quantile(0.5, change.duration_counts, bounds),
        p99_seconds=quantile(0.99, change.duration_counts, bounds),
    )


def _summed(counts: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def quantile(part: float, counts: Sequence[int], bounds: Sequence[float]) -> float | None:
    """Return below which duration so large a part of the calls was, as Prometheus works it out; None without calls.

    `counts` has a number for each of `bounds`, the upper ones of buckets, and one for what took longer than the last.
    """
    wanted = part * sum(counts)
    if not wanted:
        return None
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return lower
