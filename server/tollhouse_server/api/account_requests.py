"""Upstream accounts as requests write them, and as the catalogue keeps them."""

from collections.abc import Sequence
from typing import Any, Final

from tollhouse.admin.v1 import accounts_pb2 as pb
from tollhouse.admin.v1 import limits_pb2

from tollhouse_server.api.values import etag, money, nanos_of, timestamp
from tollhouse_server.money import MAX_NANOS
from tollhouse_server.names import AccountName, TenantName, invalid
from tollhouse_server.routing.tables import AccountRow
from tollhouse_server.routing.targets import AccountLimit, AccountMetric
from tollhouse_server.upstream.protocol import UpstreamKind

COLUMNS: Final = {
    "display_name": "display_name",
    "google_project": "project",
    "endpoint": "base_url_key",
    "region": "region",
    "egress": "egress",
    "tenant": "tenant_id",
    "environment": "environment",
}
"""The fields of an account that can be changed, and the columns that they are kept in; its limits are rows."""

CHANGEABLE: Final = (*COLUMNS, "limits")

_KINDS: Final = {
    pb.Account.UPSTREAM_UNSPECIFIED: UpstreamKind.GEMINI_API,
    pb.Account.UPSTREAM_GEMINI_API: UpstreamKind.GEMINI_API,
    pb.Account.UPSTREAM_VERTEX: UpstreamKind.VERTEX,
    pb.Account.UPSTREAM_OPENAI_COMPATIBLE: UpstreamKind.OPENAI_COMPATIBLE,
}


def new_row(account_id: str, account: pb.Account) -> AccountRow:
    """Return the account that a request asks for; without an endpoint it is at the address named as its kind.

    Raises:
        InvalidRequest: the tenant is not a name of one.
    """
    kind = _KINDS[account.upstream]
    values = column_values(account, tuple(COLUMNS))
    return AccountRow(
        account_id=account_id, kind=kind.value, **{**values, "base_url_key": account.endpoint or kind.value}
    )


def column_values(account: pb.Account, fields: Sequence[str]) -> dict[str, Any]:
    """Return the columns of these fields.

    Raises:
        InvalidRequest: the tenant is not a name of one.
    """
    return {COLUMNS[field]: _column(account, field) for field in fields if field in COLUMNS}


def _column(account: pb.Account, field: str) -> str:
    if field == "tenant":
        return TenantName.parse(account.tenant, "account.tenant").tenant if account.tenant else ""
    if field == "environment":
        return _lower_name(account.environment)
    return str(getattr(account, field))


def _lower_name(environment: "pb.Account.Environment.ValueType") -> str:
    """Return an environment as API keys have it."""
    name = pb.Account.Environment.Name(environment).removeprefix("ENVIRONMENT_")
    return "" if name == "UNSPECIFIED" else name.lower()


def limits_in(account: pb.Account) -> tuple[AccountLimit, ...]:
    """Return the limits of a request.

    Raises:
        InvalidRequest: an amount is not positive, or not in the unit of its metric.
    """
    return tuple(_limit(limit, f"account.limits[{index}]") for index, limit in enumerate(account.limits))


def _limit(limit: pb.AccountLimit, field: str) -> AccountLimit:
    metric = AccountMetric(pb.AccountLimit.Metric.Name(limit.metric).removeprefix("METRIC_"))
    is_money = metric is AccountMetric.SPEND_PER_10_MINUTES
    wanted = "money" if is_money else "units"
    if limit.amount.WhichOneof("amount") != wanted:
        raise invalid(f"{field}.amount.{wanted}", f"is required for the metric {metric}, and nothing else")
    amount = nanos_of(limit.amount.money, f"{field}.amount.money") if is_money else limit.amount.units
    if not 0 < amount <= MAX_NANOS:
        raise invalid(f"{field}.amount", "must be more than zero")
    return AccountLimit(metric=metric, amount=amount, model=limit.model.removeprefix("models/"))


def account_message(row: AccountRow, limits: Sequence[AccountLimit]) -> pb.Account:
    """Return the message of an account."""
    return pb.Account(
        name=str(AccountName(row.account_id)),
        display_name=row.display_name,
        upstream=pb.Account.Upstream.Value(f"UPSTREAM_{row.kind.upper()}"),
        google_project=row.project,
        endpoint=row.base_url_key,
        region=row.region,
        egress=row.egress,
        tenant=str(TenantName(row.tenant_id)) if row.tenant_id else "",
        environment=pb.Account.Environment.Value(f"ENVIRONMENT_{row.environment.upper() or 'UNSPECIFIED'}"),
        limits=map(_limit_message, limits),
        state=pb.Account.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )


def _limit_message(limit: AccountLimit) -> pb.AccountLimit:
    is_money = limit.metric is AccountMetric.SPEND_PER_10_MINUTES
    return pb.AccountLimit(
        metric=pb.AccountLimit.Metric.Value(f"METRIC_{limit.metric}"),
        amount=limits_pb2.LimitAmount(money=money(limit.amount))
        if is_money
        else limits_pb2.LimitAmount(units=limit.amount),
        model=limit.model,
    )
