"""Limits as administrators see them: create, read, change, delete, and what their current windows hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.rows import change, check_version, find, insert, run_sql
from tollhouse_server.errors import ResourceInUse, ResourceNotFound
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Calendar, Window
from tollhouse_server.ledger.windows import counted_starts, window_end, window_start
from tollhouse_server.names import DepartmentName, LimitName, ProjectName, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """The current window of a limit: amounts in the unit of its metric.

    `effective_amount` is the limit's amount with the increases that are in force at the moment of the question.
    """

    held: int
    settled: int
    expected: int
    effective_amount: int
    starts_at: datetime
    resets_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitView:
    """A limit with its current window, both as of one moment."""

    row: LimitRow
    use: LimitUse

    @property
    def used_ratio(self) -> float:
        """Return what is spent and reserved as a part of the amount; nothing fits into an amount of nothing."""
        used, amount = self.use.held + self.use.settled, self.use.effective_amount
        return used / amount if amount else 1.0


async def create_limit(session: AsyncSession, row: LimitRow) -> LimitRow:
    """Insert a limit; it binds every reservation that starts after the commit."""
    await insert(session, row)
    await bump(session, Topic.LIMITS)
    return row


async def lock_limit(session: AsyncSession, name: LimitName) -> LimitRow:
    """Return an active limit, and keep others from changing it until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    return await find(session, _active(name), name, lock=True)


async def get_limit(session: AsyncSession, name: LimitName) -> LimitRow:
    """Return an active limit.

    Raises:
        ResourceNotFound: there is none.
    """
    return await find(session, _active(name), name)


def _active(name: LimitName) -> Any:
    return select(LimitRow).where(
        LimitRow.tenant_id == name.tenant, LimitRow.name == name.limit, LimitRow.state == "ACTIVE"
    )


async def change_limit(
    session: AsyncSession, row: LimitRow, values: Mapping[str, object], *, expected_version: int | None
) -> LimitRow:
    """Write `values` to a locked limit. What is held or settled already stays counted.

    Raises:
        EtagMismatch: the row is not at `expected_version`.
        ResourceInUse: more than the thresholds would change of a limit that something else keeps.
    """
    check_version(row, expected_version, str(LimitName(row.tenant_id, row.name)))
    if any(value != getattr(row, column) for column, value in values.items() if column != "thresholds"):
        require_unkept(row)
    version = row.version
    await change(session, row, **values)
    if row.version != version:
        await announce_change(session, row.tenant_id, row.limit_id)
    return row


async def delete_limit(session: AsyncSession, row: LimitRow, *, expected_version: int | None) -> LimitRow:
    """Stop enforcing a locked limit; its counters stay for reports.

    Raises:
        EtagMismatch: the row is not at `expected_version`.
    """
    return await change_limit(session, row, {"state": "DELETED"}, expected_version=expected_version)


def require_unkept(row: LimitRow) -> None:
    """Return if administrators may change the limit.

    Raises:
        ResourceInUse: it is kept by something else, such as a wallet.
    """
    if row.kept_by:
        raise ResourceInUse(name=str(LimitName(row.tenant_id, row.name)), used_by=row.kept_by)


async def lock_use(session: AsyncSession, row: LimitRow) -> tuple[int, int]:
    """Return what is held and settled of a locked limit that never resets, as it stays until the transaction ends.

    Every server reads the limits again then: whoever asks is about to change the amount.
    """
    await announce_change(session, row.tenant_id, row.limit_id)
    found = (await run_sql(session, _USE, {"tenant": row.tenant_id, "limit": row.limit_id})).one()
    return found.held, found.settled


async def keep_amount(session: AsyncSession, row: LimitRow, amount: int, *, is_new_round: bool) -> LimitRow:
    """Write the amount of a limit whose use is locked, on behalf of what keeps it; a new round raises alerts again."""
    return await change(session, row, amount=amount, alert_round=row.alert_round + is_new_round)


_USE: Final = """
SELECT coalesce(sum(held), 0)::bigint AS held, coalesce(sum(settled), 0)::bigint AS settled FROM counter
WHERE tenant_id = :tenant AND limit_id = :limit
"""

# Every counter, not only those with a mark: a tick that is about to set one has the row locked, and is waited for.
_FORGET_ALERT_MARKS: Final = text("""
UPDATE counter c SET alert_at = 0
FROM (
    SELECT window_start FROM counter WHERE tenant_id = :tenant AND limit_id = :limit
    ORDER BY window_start FOR NO KEY UPDATE
) AS locked
WHERE c.tenant_id = :tenant AND c.limit_id = :limit AND c.window_start = locked.window_start
""")


async def announce_change(session: AsyncSession, tenant: str, limit_id: int | None) -> None:
    """Have every server read the limits again, and work out anew when this one's next alert is due."""
    # The epoch first: whoever changes limits too is waited for before the counters are locked, on which calls wait.
    await bump(session, Topic.LIMITS)
    await run_sql(session, _FORGET_ALERT_MARKS, {"tenant": tenant, "limit": limit_id})


_COLUMNS: Final = tuple(LimitRow.model_fields)

# The counters that begin late enough to count, and perhaps a few more: where windows are cut is for windows.py to say.
# So a page is one question, and each limit's counters are found by their key however many it has.
_EVERY: Final = f"""
SELECT {", ".join(f'l."{column}"' for column in _COLUMNS)},
    moment.now, t.time_zone, t.fiscal_month_start_day,
    least(l.amount + coalesce(raised.amount, 0), 9223372036854775807)::bigint AS effective_amount,
    coalesce(late.starts, '{{}}') AS starts, late.held, late.settled, late.expected
FROM (SELECT clock_timestamp() AS now) AS moment
CROSS JOIN usage_limit l
JOIN tenant t ON t.tenant_id = l.tenant_id
LEFT JOIN LATERAL (
    SELECT sum(i.amount) AS amount FROM limit_increase i
    WHERE i.tenant_id = l.tenant_id AND i.limit_id = l.limit_id AND i.state = 'APPROVED'
        AND coalesce(i.starts_at, moment.now) <= moment.now AND moment.now < i.expires_at
) AS raised ON true
LEFT JOIN LATERAL (
    SELECT array_agg(c.window_start) AS starts, array_agg(c.held) AS held, array_agg(c.settled) AS settled,
        array_agg(c.expected) AS expected
    FROM counter c
    WHERE c.tenant_id = l.tenant_id AND c.limit_id = l.limit_id
        AND c.window_start > moment.now - CASE l."window"
            WHEN 'MINUTE' THEN interval '2 minutes' WHEN 'ROLLING_10_MINUTES' THEN interval '12 minutes'
            WHEN 'HOUR' THEN interval '2 hours' WHEN 'DAY' THEN interval '26 hours'
            WHEN 'TOTAL' THEN interval '1000 years' ELSE interval '32 days' END
) AS late ON true
"""  # noqa: S608 - the columns are those of the row
_VIEW: Final = f"{_EVERY} WHERE l.tenant_id = :tenant AND l.state = 'ACTIVE' AND"

_ONE: Final = text(f"{_VIEW} l.name = :name")
_PAGE: Final = text(f"{_VIEW} l.name > :after ORDER BY l.name LIMIT :size")
_PAGE_OF_SCOPES: Final = text(f"{_VIEW} l.scope = ANY(:scopes) AND l.name > :after ORDER BY l.name LIMIT :size")


# Which limits are the fullest in their current window, by calendar arithmetic that is near enough to choose by: some of
# them are looked at more closely then.
_FULLEST: Final = text(f"""{_EVERY}
WHERE (l.tenant_id, l.limit_id) IN (
    SELECT i.tenant_id, i.limit_id
    FROM usage_limit i JOIN tenant it ON it.tenant_id = i.tenant_id
    CROSS JOIN LATERAL (SELECT clock_timestamp() AT TIME ZONE it.time_zone AS now) AS here
    CROSS JOIN LATERAL (SELECT make_interval(days => it.fiscal_month_start_day - 1) AS fiscal) AS shift
    LEFT JOIN LATERAL (
        SELECT sum(ic.held + ic.settled) AS used FROM counter ic
        WHERE ic.tenant_id = i.tenant_id AND ic.limit_id = i.limit_id AND ic.window_start >= CASE i."window"
            WHEN 'TOTAL' THEN to_timestamp(0)
            WHEN 'MONTH' THEN date_trunc('month', here.now) AT TIME ZONE it.time_zone
            WHEN 'FISCAL_MONTH'
                THEN (date_trunc('month', here.now - shift.fiscal) + shift.fiscal) AT TIME ZONE it.time_zone
            WHEN 'DAY' THEN date_trunc('day', here.now) AT TIME ZONE it.time_zone
            WHEN 'HOUR' THEN date_trunc('hour', clock_timestamp())
            ELSE clock_timestamp() - interval '11 minutes' END
    ) AS spent ON true
    WHERE i.state = 'ACTIVE' AND i.metric = 'COST' AND (CAST(:tenant AS text) IS NULL OR i.tenant_id = :tenant)
        AND (CAST(:department AS text) IS NULL OR split_part(i.scope, '/', 3) = 'departments'
            AND split_part(i.scope, '/', 4) IN (
            SELECT d.department_id FROM department d JOIN department top ON top.tenant_id = d.tenant_id
            WHERE d.tenant_id = :tenant AND top.department_id = :department AND d.path <@ top.path
        ))
        AND (CAST(:project AS text) IS NULL OR split_part(i.scope, '/', 6) = :project)
    ORDER BY coalesce(spent.used, 0)::float8 / greatest(i.amount, 1) DESC, i.tenant_id, i.limit_id LIMIT :size
)
""")  # noqa: S608 - put together from constants alone


async def fullest_budgets(session: AsyncSession, scope: Scope | None, *, size: int) -> list[LimitView]:
    """Return up to `size` money limits of a tenant, department or project and all below it, the fullest first.

    None means all tenants. Of a project also the limits of its keys; what is above the scope is not told.
    """
    asked = {
        "tenant": None if scope is None else scope.tenant,
        "department": scope.department if isinstance(scope, DepartmentName | ProjectName) else None,
        "project": scope.project if isinstance(scope, ProjectName) else None,
        "size": size,
    }
    found = [_view(row) for row in await run_sql(session, _FULLEST, asked)]
    return sorted(found, key=lambda one: (-one.used_ratio, one.row.tenant_id, one.row.name))


async def view_limit(session: AsyncSession, name: LimitName) -> LimitView:
    """Return an active limit with its current window.

    Raises:
        ResourceNotFound: there is none.
    """
    found = (await run_sql(session, _ONE, {"tenant": name.tenant, "name": name.limit})).one_or_none()
    if found is None:
        raise ResourceNotFound(name=str(name))
    return _view(found)


async def list_limits(
    session: AsyncSession, tenant: str, *, scopes: Sequence[str], after: str, size: int
) -> list[LimitView]:
    """Return up to `size` active limits in the order of their names; `scopes`, if there are any, narrow to those."""
    asked: dict[str, object] = {"tenant": tenant, "after": after, "size": size}
    if scopes:
        asked["scopes"] = list(scopes)
    found = await run_sql(session, _PAGE_OF_SCOPES if scopes else _PAGE, asked)
    return [_view(row) for row in found]


def _view(found: Row[Any]) -> LimitView:
    row = LimitRow(**{column: getattr(found, column) for column in _COLUMNS})
    calendar = Calendar(ZoneInfo(found.time_zone), found.fiscal_month_start_day)
    window = Window(row.window)
    start = window_start(window, found.now, calendar)
    counted = counted_starts(window, start)
    which = [index for index, counter in enumerate(found.starts) if counter in counted]
    use = LimitUse(
        held=sum(found.held[index] for index in which),
        settled=sum(found.settled[index] for index in which),
        expected=sum(found.expected[index] for index in which),
        effective_amount=found.effective_amount,
        starts_at=counted[0],
        resets_at=window_end(window, start, calendar),
    )
    return LimitView(row=row, use=use)
