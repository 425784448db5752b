"""Alerts that limits have raised, to be read; the tick writes them."""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import and_, col, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.ledger.tables import LimitAlertRow, LimitRow


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertQuestion:
    """Which alerts are listed: of limits on exactly this scope, of one limit, since a moment; empty means all."""

    scope: str = ""
    limit: str = ""
    since: datetime | None = None


async def list_alerts(
    session: AsyncSession,
    tenant: str,
    question: AlertQuestion,
    *,
    after: tuple[datetime, int] | None,
    size: int,
) -> list[tuple[LimitAlertRow, LimitRow]]:
    """Return up to `size` alerts with their limits, the newest first, after the one raised at a moment under an id."""
    raised_at, alert_id = col(LimitAlertRow.raised_at), col(LimitAlertRow.alert_id)
    limit = and_(col(LimitRow.tenant_id) == col(LimitAlertRow.tenant_id), LimitRow.limit_id == LimitAlertRow.limit_id)
    query = (
        select(LimitAlertRow, LimitRow)
        .join(LimitRow, limit)
        .where(col(LimitAlertRow.tenant_id) == tenant)
        .order_by(raised_at.desc(), alert_id.desc())
        .limit(size)
    )
    if question.scope:
        query = query.where(col(LimitRow.scope) == question.scope)
    if question.limit:
        query = query.where(col(LimitRow.name) == question.limit)
    if question.since is not None:
        query = query.where(raised_at >= question.since)
    if after is not None:
        query = query.where(tuple_(raised_at, alert_id) < tuple_(*after))
    return list((await session.exec(query)).all())
