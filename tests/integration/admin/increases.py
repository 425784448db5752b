"""Temporary increases of limit `cap` of tenant acme as tests ask for them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import limit_increases_pb2 as pb
from tollhouse.admin.v1 import limits_pb2

from tests.integration.admin.limits import create, dollars
from tests.integration.admin.plane import Plane

NAME = "tenants/acme/limitIncreases/fair"
EMEA = "tenants/acme/departments/emea"
SALES = "tenants/acme/departments/sales"
STEPS = {
    "approve": pb.ApproveLimitIncreaseRequest,
    "reject": pb.RejectLimitIncreaseRequest,
    "withdraw": pb.WithdrawLimitIncreaseRequest,
    "revoke": pb.RevokeLimitIncreaseRequest,
}


def moment(from_now: timedelta) -> Timestamp:
    """A moment as it travels."""
    message = Timestamp()
    message.FromDatetime(datetime.now(UTC) + from_now)
    return message


def asked(increase_id: str = "fair", *, scope: str = "", **fields: Any) -> pb.RequestLimitIncreaseRequest:
    """A request for $50 more on limit `cap` for a week, or for what `fields` say."""
    given: dict[str, Any] = {
        "limit": "tenants/acme/limits/cap",
        "amount": dollars(50),
        "reason": "the fair in Hanover",
        "expire_time": moment(timedelta(days=7)),
    }
    return pb.RequestLimitIncreaseRequest(
        parent="tenants/acme",
        limit_increase_id=increase_id,
        scope=scope,
        limit_increase=pb.LimitIncrease(**{**given, **fields}),
    )


async def ready(plane: Plane) -> str:
    """Make a $100 limit on department sales, and return the key of Ann, who asks."""
    await plane.tenant("acme")
    await create(plane)
    return await plane.key("acme", "ann", ("tenant-admin", "tenants/acme"))


async def effective(plane: Plane) -> limits_pb2.LimitAmount:
    """Return the amount of limit `cap` in force."""
    limit = await plane.call(limits_pb2.GetLimitRequest(name="tenants/acme/limits/cap"))
    amount: limits_pb2.LimitAmount = limit.current.effective_amount
    return amount
