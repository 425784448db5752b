"""What the commands about limits have in common: kinds of limits, amounts in their unit, and how a limit is named."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from tollhouse.admin.v1 import limits_pb2 as pb
from tollhouse.admin.v1.limits_pb2_grpc import LimitServiceStub

from tollhouse_admin.amounts import money_of, parse_count, parse_dollars
from tollhouse_admin.command import Session
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.names import tenant_of
from tollhouse_admin.scopes import OFFERED, complete_in_tenant


class Metric(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"
    IMAGES = "images"
    COST = "cost"
    CONCURRENCY = "concurrency"


class Window(StrEnum):
    """How long usage counts."""

    MINUTE = "minute"
    ROLLING_10_MINUTES = "rolling-10-minutes"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    FISCAL_MONTH = "fiscal-month"
    TOTAL = "total"


class Mode(StrEnum):
    """How hard a limit is."""

    STRICT = "strict"
    ELASTIC = "elastic"
    SOFT = "soft"


def _limits(connection: Connection, tenant: str) -> Iterable[pb.Limit]:
    stub = connection.stub(LimitServiceStub)
    return connection.pages(stub.ListLimits, pb.ListLimitsRequest(parent=tenant), "limits", limit=OFFERED)


complete_limits = complete_in_tenant(_limits)
LimitId = Annotated[str, typer.Argument(metavar="LIMIT", help="Id or name.", autocompletion=complete_limits)]
OnlyLimit = Annotated[
    str | None, typer.Argument(metavar="LIMIT", help="Only those of this limit.", autocompletion=complete_limits)
]
AMOUNT_HELP = "US dollars for cost ($100, 0.10), else a count (5000, 5k, 1.5M)."


def amount_of(text: str, metric: int) -> pb.LimitAmount:
    """Return an amount as it was typed, in the unit of the metric.

    Raises:
        Failure: it is not one.
    """
    if metric == pb.LIMIT_METRIC_COST:
        return pb.LimitAmount(money=money_of(parse_dollars(text)))
    return pb.LimitAmount(units=parse_count(text))


def read_limit(session: Session, name: str) -> pb.Limit:
    """Return a limit by its full name."""
    stub = session.connection.stub(LimitServiceStub)
    return session.connection.call(stub.GetLimit, pb.GetLimitRequest(name=name))


def find_limit(session: Session, name: str, scope: str) -> pb.Limit:
    """Return a limit on exactly `scope`, for whom may read there only; an empty scope is the whole tenant.

    Raises:
        Failure: there is none of this name on that scope.
    """
    if not scope:
        return read_limit(session, name)
    stub = session.connection.stub(LimitServiceStub)
    request = pb.ListLimitsRequest(parent=tenant_of(name), scope=scope)
    for limit in session.connection.pages(stub.ListLimits, request, "limits"):
        if limit.name == name:
            found: pb.Limit = limit
            return found
    raise Failure(
        reason="RESOURCE_NOT_FOUND",
        message=f"{name} does not exist on {scope}",
        advice="'tollhouse limits list' with the same scope shows what is there",
        exit_code=ExitCode.NOT_FOUND,
    )
