"""Statuses for tests of `tollhouse top`."""

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import operations_pb2 as pb
from tollhouse.admin.v1 import traffic_pb2
from tollhouse.v1 import generation_pb2

BOUNDS = (0.1, 1.0)
START = 1_800_000_000


def counters(*, seconds: int, ok: int, errors: int = 0, server: str = "one/1") -> pb.ServerCounters:
    """What a server counted so many seconds after START: a tenth of its calls slow, and ten tokens each."""
    slow = ok // 10
    generate = pb.RpcCounters(
        rpc="GenerationService.GenerateContent",
        ok_count=ok,
        error_count=errors,
        duration_counts=[ok + errors - slow, slow, 0],
    )
    return pb.ServerCounters(
        server_id=server,
        version="1.2.3",
        read_time=Timestamp(seconds=START + seconds),
        rpcs=[generate],
        reasons=[pb.ReasonCounter(reason="LIMIT_EXCEEDED", count=errors)],
        token_count=10 * ok,
        processes=[pb.RoleCount(role="worker", count=2)],
        duration_bounds_seconds=BOUNDS,
    )


def budget(scope: str, *, used_ratio: float, dollars: int = 100) -> pb.BudgetStatus:
    """A budget in the middle of its month."""
    return pb.BudgetStatus(
        limit="tenants/acme/limits/monthly",
        scope=scope,
        amount=Money(currency_code="USD", units=dollars),
        settled=Money(currency_code="USD", units=int(dollars * used_ratio)),
        used_ratio=used_ratio,
        elapsed_ratio=0.5,
        reset_time=Timestamp(seconds=START + 86_400 * 3),
    )


def platform(*, seconds: int = 0, ok: int = 100, errors: int = 0, budgets: int = 1) -> pb.Status:
    """The status of a platform with a breaker open, an account cooling down, and calls that wait."""
    return pb.Status(
        scope="platform",
        read_time=Timestamp(seconds=START + seconds),
        spend=pb.Spend(last_hour=Money(units=1, nanos=230_000_000), month_to_date=Money(units=456)),
        budgets=[budget(f"tenants/acme/departments/d{number}", used_ratio=0.97) for number in range(budgets)],
        suspense=pb.SuspenseStatus(count=2, oldest_suspend_time=Timestamp(seconds=START - 7200)),
        counters=counters(seconds=seconds, ok=ok, errors=errors),
        waiting_calls=[traffic_pb2.WaitingCalls(priority=generation_pb2.PRIORITY_BATCH, count=7)],
        troubled_breakers=[
            traffic_pb2.Breaker(account="accounts/east", model="flash", state=traffic_pb2.BREAKER_STATE_OPEN)
        ],
        accounts=[
            pb.AccountStatus(account="accounts/idle", model="flash"),
            pb.AccountStatus(
                account="accounts/west",
                model="flash",
                in_flight_count=3,
                cooling_end_time=Timestamp(seconds=START + 12),
                head_rooms=[
                    traffic_pb2.HeadRoom(metric=traffic_pb2.HeadRoom.METRIC_REQUESTS_PER_MINUTE, limit=100, used=75)
                ],
            ),
        ],
        process_count=2,
    )
