"""Status, diagnosis and session as messages."""

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from tollhouse.admin.v1 import operations_pb2 as pb

from tollhouse_server.api.traffic_messages import breaker_message, head_room_message, waiting_messages
from tollhouse_server.api.values import money, timestamp
from tollhouse_server.ledger.limit_store import LimitView
from tollhouse_server.names import AccountName, LimitName
from tollhouse_server.operations.checks.terms import Result
from tollhouse_server.operations.counters import Counters, server_version
from tollhouse_server.operations.status import PlatformStatus, ScopeStatus
from tollhouse_server.reporting.sums import Dimension
from tollhouse_server.telemetry.declarations.declaration import CALL_BUCKETS
from tollhouse_server.traffic.traffic_view import TrafficView


def scope_message(scope: str, status: ScopeStatus) -> pb.Status:
    """Return what a scope spends."""
    return pb.Status(
        scope=scope,
        read_time=timestamp(status.read_at),
        spend=pb.Spend(last_hour=money(status.hour_nanos), month_to_date=money(status.month_nanos)),
        departments=[
            pb.DepartmentSpend(department=str(one.keys[Dimension.DEPARTMENT]), month_to_date=money(one.sums.cost_nanos))
            for one in status.departments
        ],
        budgets=[_budget(one, status.read_at) for one in status.budgets],
        suspense=pb.SuspenseStatus(
            count=status.suspense.count, oldest_suspend_time=timestamp(status.suspense.oldest_at)
        ),
        recent_usage=pb.RecentUsage(
            calls=status.minute.calls,
            input_tokens=status.minute.input_tokens,
            output_tokens=status.minute.output_tokens,
        ),
    )


def platform_message(scope: str, status: PlatformStatus) -> pb.Status:
    """Return what all tenants spend, and how traffic goes."""
    message = scope_message(scope, status.spend)
    traffic = status.traffic
    message.counters.CopyFrom(_counters(status.counters))
    message.waiting_calls.extend(waiting_messages(traffic.reports))
    message.troubled_breakers.extend(breaker_message(one) for one in traffic.breakers.values() if one.is_troubled)
    message.accounts.extend(_accounts(traffic))
    message.process_count = len(traffic.reports)
    return message


def _budget(one: LimitView, now: datetime) -> pb.BudgetStatus:
    use = one.use
    message = pb.BudgetStatus(
        limit=str(LimitName(one.row.tenant_id, one.row.name)),
        scope=one.row.scope,
        amount=money(use.effective_amount),
        settled=money(use.settled),
        held=money(use.held),
        used_ratio=one.used_ratio,
        reset_time=timestamp(use.resets_at),
    )
    if use.resets_at is not None:
        length, over = use.resets_at - use.starts_at, now - use.starts_at
        message.elapsed_ratio = min(1.0, max(0.0, over / length))
    return message


def _accounts(traffic: TrafficView) -> Iterable[pb.AccountStatus]:
    """Return each account and model once, however many tiers name them."""
    found = {(one.account.account_id, one.model): one.account for one in traffic.targets if one.account is not None}
    for (account_id, model), account in sorted(found.items()):
        use = traffic.use_of(account, model)
        yield pb.AccountStatus(
            account=str(AccountName(account_id)),
            model=model,
            in_flight_count=use.in_flight,
            head_rooms=map(head_room_message, use.head_rooms),
            cooling_end_time=timestamp(use.cooling_until),
        )


def _counters(counters: Counters) -> pb.ServerCounters:
    return pb.ServerCounters(
        server_id=counters.server_id,
        version=server_version(),
        read_time=timestamp(counters.read_at),
        rpcs=[
            pb.RpcCounters(rpc=rpc, ok_count=counts.ok, error_count=counts.errors, duration_counts=counts.durations)
            for rpc, counts in counters.rpcs.items()
        ],
        reasons=[pb.ReasonCounter(reason=reason, count=count) for reason, count in counters.reasons.items()],
        token_count=counters.tokens,
        in_flight_count=counters.in_flight,
        processes=[pb.RoleCount(role=role, count=count) for role, count in counters.processes.items()],
        duration_bounds_seconds=CALL_BUCKETS,
    )


def result_message(result: Result) -> pb.CheckResult:
    """Return what one check found."""
    duration = Duration()
    duration.FromMicroseconds(round(result.seconds * 1_000_000))
    return pb.CheckResult(
        name=result.name,
        outcome=pb.CheckOutcome.Value(f"CHECK_OUTCOME_{result.finding.outcome.value}"),
        seen=result.finding.seen,
        advice=result.finding.advice,
        duration=duration,
    )
