"""The tables of a status: which there are, their rows, and what is marked in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import floor

from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import operations_pb2 as pb
from tollhouse.admin.v1 import traffic_pb2

from tollhouse_admin.names import last_id
from tollhouse_admin.rates import Rates, RpcRate
from tollhouse_admin.rendering import enum_text
from tollhouse_admin.status_texts import dollars, latency_text, number, span_text
from tollhouse_admin.traffic_layouts import limit_text

_FULL, _NEARLY_FULL = 1.0, 0.9

Row = tuple[tuple[str, ...], str]
"""Cells, and the style that marks them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table: its first column is a name, which gives way where there is no room."""

    titles: tuple[str, ...]
    rows: list[Row]


def sections_of(status: pb.Status, rates: Rates | None, sort: Callable[[RpcRate], float]) -> list[Section]:
    """Return the tables, those first that must be there in the smallest terminal."""
    found = [
        Section(titles=("BREAKER", "STATE", "FAILED", "TRIED AGAIN"), rows=list(_breakers(status))),
        Section(titles=("RPC", "CALLS/S", "ERRORS/S", "P50", "P99"), rows=list(_rpcs(rates, sort))),
        Section(
            titles=("BUDGET", "USED", "TIME OVER", "SPENT", "OF", "HELD", "RESETS IN"), rows=list(_budgets(status))
        ),
        Section(titles=("DEPARTMENT", "THIS MONTH"), rows=list(_departments(status))),
        Section(titles=("ACCOUNT", "IN FLIGHT", "SCARCEST LIMIT", "429"), rows=list(_accounts(status))),
    ]
    return [one for one in found if one.rows]


def _breakers(status: pb.Status) -> Iterator[Row]:
    for one in status.troubled_breakers:
        state = enum_text(traffic_pb2.BreakerState.DESCRIPTOR, one.state)
        again = span_text(_seconds_until(status, one.probe_time)) if one.HasField("probe_time") else "by order only"
        name = f"{last_id(one.account)} {one.region} {one.model}"
        style = "red" if one.state == traffic_pb2.BREAKER_STATE_OPEN else "yellow"
        held = f"{state}, forced" if one.forced else state
        yield (name, held, f"{one.failure_count} of {one.call_count}", again), style


def _rpcs(rates: Rates | None, sort: Callable[[RpcRate], float]) -> Iterator[Row]:
    for one in sorted(rates.rpcs if rates else (), key=lambda rpc: (-sort(rpc), rpc.rpc)):
        cells = (one.rpc.replace("Service.", "."), number(one.calls_per_second), number(one.errors_per_second))
        style = "yellow" if one.errors_per_second else ""
        yield (*cells, latency_text(one.p50_seconds), latency_text(one.p99_seconds)), style


def _budgets(status: pb.Status) -> Iterator[Row]:
    for one in status.budgets:
        over = f"{one.elapsed_ratio:.0%}" if one.HasField("elapsed_ratio") else ""
        resets = span_text(_seconds_until(status, one.reset_time)) if one.HasField("reset_time") else "never"
        cells = (
            _scope(one.scope, one.limit),
            f"{floor(one.used_ratio * 100)}%",
            over,
            dollars(one.settled),
            dollars(one.amount),
        )
        yield (*cells, dollars(one.held), resets), _budget_style(one)


def _budget_style(one: pb.BudgetStatus) -> str:
    if one.used_ratio >= _FULL:
        return "red"
    is_ahead = one.HasField("elapsed_ratio") and one.used_ratio > one.elapsed_ratio and one.used_ratio > 0.5
    return "yellow" if one.used_ratio >= _NEARLY_FULL or is_ahead else ""


def _scope(scope: str, limit: str) -> str:
    """Return a scope without the words for what its parts are, and the limit's own id."""
    return f"{'/'.join(scope.split('/')[1::2])} {last_id(limit)}"


def _departments(status: pb.Status) -> Iterator[Row]:
    for one in status.departments:
        yield (last_id(one.department), dollars(one.month_to_date)), ""


def _accounts(status: pb.Status) -> Iterator[Row]:
    # Whoever is in use or in trouble first: a platform has many models that nobody calls now.
    for one in sorted(status.accounts, key=lambda account: (not _is_busy(account), account.account, account.model)):
        is_cooling = one.HasField("cooling_end_time")
        cooling = f"for {span_text(_seconds_until(status, one.cooling_end_time))}" if is_cooling else ""
        cells = (f"{last_id(one.account)} {one.model}", str(one.in_flight_count), limit_text(one.head_rooms), cooling)
        yield cells, "red" if is_cooling else ""


def _is_busy(one: pb.AccountStatus) -> bool:
    return one.HasField("cooling_end_time") or one.in_flight_count > 0 or any(room.used for room in one.head_rooms)


def _seconds_until(status: pb.Status, moment: Timestamp) -> float:
    return float(moment.ToNanoseconds() - status.read_time.ToNanoseconds()) / 1e9
