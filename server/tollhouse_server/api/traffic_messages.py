"""Targets, breakers and their orders as messages."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from tollhouse.admin.v1 import traffic_pb2 as pb

from tollhouse_server.api.routing_messages import KIND_NUMBERS, PRIORITY_NUMBERS
from tollhouse_server.api.values import etag, timestamp
from tollhouse_server.names import AccountName, TenantName
from tollhouse_server.traffic.account_use import HeadRoom, waiting_calls
from tollhouse_server.traffic.breaker_overview import BreakerOverview
from tollhouse_server.traffic.breakers import State
from tollhouse_server.traffic.report_store import ProcessReport
from tollhouse_server.traffic.tables import BreakerOrderRow
from tollhouse_server.traffic.target_list import ListedTarget
from tollhouse_server.traffic.traffic_view import TrafficView

_STATES = {
    State.CLOSED: pb.BREAKER_STATE_CLOSED,
    State.HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
    State.OPEN: pb.BREAKER_STATE_OPEN,
}


def order_message(row: BreakerOrderRow) -> pb.BreakerOrder:
    """Return an order."""
    return pb.BreakerOrder(
        account=str(AccountName(row.account_id)),
        region=row.region,
        model=row.model,
        state=_STATES[State[row.forced]],
        reason=row.reason,
        orderer=row.actor,
        expire_time=timestamp(row.expire_at),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def breaker_message(one: BreakerOverview) -> pb.Breaker:
    """Return what all processes see of a breaker."""
    message = pb.Breaker(
        account=str(AccountName(one.key.account_id)),
        region=one.key.region,
        model=one.key.model,
        state=_STATES[one.state],
        forced=one.is_forced,
        process_count=one.processes,
        open_process_count=one.open_processes,
        half_open_process_count=one.half_open_processes,
        call_count=one.calls,
        failure_count=one.failures,
        change_time=timestamp(one.changed_at),
        probe_time=timestamp(one.probe_at),
    )
    if one.calls:
        message.mean_duration.CopyFrom(_duration(one.seconds / one.calls))
    return message


def target_message(one: ListedTarget, seen: TrafficView) -> pb.Target:
    """Return a target with what is known of it."""
    message = pb.Target(tier=f"tiers/{one.tier}", rank=one.rank, weight=one.weight, model=one.model)
    account = one.account
    if account is None or one.key is None:
        return message
    message.account = str(AccountName(account.account_id))
    message.upstream_kind = KIND_NUMBERS[account.kind]
    message.endpoint, message.region = account.endpoint, account.region
    message.tenant = str(TenantName(account.tenant_id)) if account.tenant_id else ""
    message.environment = account.environment
    if (breaker := seen.breakers.get(one.key)) is not None:
        message.breaker.CopyFrom(breaker_message(breaker))
    use = seen.use_of(account, one.model)
    message.in_flight_count = use.in_flight
    message.head_rooms.extend(map(head_room_message, use.head_rooms))
    if (cooling_until := use.cooling_until) is not None:
        message.cooling_end_time.FromDatetime(cooling_until)
    return message


def waiting_messages(reports: Sequence[ProcessReport]) -> list[pb.WaitingCalls]:
    """Return how many calls wait, by priority."""
    waiting = waiting_calls(reports)
    return [
        pb.WaitingCalls(priority=PRIORITY_NUMBERS[priority], count=count)
        for priority, count in sorted(waiting.items())
        if count
    ]


def head_room_message(one: HeadRoom) -> pb.HeadRoom:
    """Return a limit of an account with what is used of it."""
    metric = pb.HeadRoom.Metric.Value(f"METRIC_{one.metric.name}")
    return pb.HeadRoom(metric=metric, model=one.model, limit=one.limit, used=one.used)


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromMicroseconds(round(seconds * 1_000_000))
    return message
