"""LimitAlertService: what limits have raised."""

from datetime import datetime

from tollhouse.admin.v1 import limit_alerts_pb2 as pb
from tollhouse.admin.v1 import limits_pb2

from tollhouse_server.api.call import Call
from tollhouse_server.api.limit_requests import quantity
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import moment_of, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger import alert_store as store
from tollhouse_server.ledger.tables import LimitAlertRow, LimitRow
from tollhouse_server.ledger.terms import Metric, Window
from tollhouse_server.names import LimitName, TenantName, invalid


class LimitAlertService:
    """Reads alerts; the ledger writes them."""

    def __init__(self, database: Database, pages: PageTokens) -> None:
        self._database = database
        self._pages = pages

    async def list_limit_alerts(self, request: pb.ListLimitAlertsRequest, call: Call) -> pb.ListLimitAlertsResponse:
        tenant = TenantName.parse(request.parent, "parent").tenant
        async with self._database.within(call.domain) as session:
            found = await store.list_alerts(
                session,
                tenant,
                _question(request, tenant),
                after=_place(self._pages.after(request)),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, found)
        token = self._pages.next(request, _position(last[0])) if last else ""
        return pb.ListLimitAlertsResponse(
            limit_alerts=[_message(alert, limit) for alert, limit in page], next_page_token=token
        )


def _question(request: pb.ListLimitAlertsRequest, tenant: str) -> store.AlertQuestion:
    limit = LimitName.parse(request.limit, "limit") if request.limit else None
    if limit is not None and limit.tenant != tenant:
        raise invalid("limit", "must be in the tenant that the request names")
    return store.AlertQuestion(
        scope=request.scope,
        limit=limit.limit if limit is not None else "",
        since=moment_of(request.start_time, "start_time") if request.HasField("start_time") else None,
    )


def _place(position: str) -> tuple[datetime, int] | None:
    if not position:
        return None
    raised_at, alert = position.split(" ")
    return datetime.fromisoformat(raised_at), int(alert)


def _position(row: LimitAlertRow) -> str:
    assert row.raised_at is not None  # noqa: S101 - the row was read
    return f"{row.raised_at.isoformat()} {row.alert_id}"


def _message(alert: LimitAlertRow, limit: LimitRow) -> pb.LimitAlert:
    metric = Metric(limit.metric)
    return pb.LimitAlert(
        name=f"tenants/{alert.tenant_id}/limitAlerts/{alert.alert_id}",
        limit=str(LimitName(limit.tenant_id, limit.name)),
        scope=limit.scope,
        metric=limits_pb2.LimitMetric.Value(f"LIMIT_METRIC_{limit.metric}"),
        window=limits_pb2.LimitWindow.Value(f"LIMIT_WINDOW_{limit.window}"),
        kind=pb.LimitAlert.Kind.Value(f"KIND_{alert.kind}"),
        threshold=alert.threshold,
        settled=quantity(alert.settled, metric),
        amount=quantity(alert.amount, metric),
        window_start_time=None if limit.window == Window.TOTAL else timestamp(alert.window_start),
        attempt_id=str(alert.attempt_id or ""),
        raise_time=timestamp(alert.raised_at),
    )
