"""SQL of charge rules. A rule is written once, and ended once; its numbers never change."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback.charge_tables import ChargeRuleRow
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert
from tollhouse_server.errors import ResourceExists
from tollhouse_server.names import PLATFORM


async def rules_in_force(session: AsyncSession, tenant: str, first: date, last: date) -> Sequence[ChargeRuleRow]:
    """Return the rules that hold for a tenant on one of these days at least: the platform's, then his own."""
    rule = ChargeRuleRow
    query = select(rule).where(
        or_(
            col(rule.tenant_id) == tenant,
            (col(rule.tenant_id) == PLATFORM) & col(rule.scope).in_([PLATFORM, f"tenants/{tenant}"]),
        ),
        col(rule.starts_on) <= last,
        or_(col(rule.ends_on).is_(None), col(rule.ends_on) > first),
        or_(col(rule.ends_on).is_(None), col(rule.ends_on) > col(rule.starts_on)),
    )
    found = (await session.exec(query.order_by(col(rule.tenant_id), col(rule.rule_id)))).all()
    return sorted(found, key=lambda row: row.tenant_id != PLATFORM)


async def create_rule(session: AsyncSession, row: ChargeRuleRow, name: str) -> ChargeRuleRow:
    """Insert a rule.

    Raises:
        ResourceExists: the id is taken.
    """
    with constraints({"charge_rule_pkey": ResourceExists(name=name)}):
        return await insert(session, row)


async def get_rule(session: AsyncSession, tenant: str, rule: str, name: str, *, lock: bool = False) -> ChargeRuleRow:
    """Return a rule, ended or not; with `lock` it stays as it is until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    query = select(ChargeRuleRow).where(ChargeRuleRow.tenant_id == tenant, ChargeRuleRow.rule_id == rule)
    return await find(session, query, name, lock=lock)


async def end_rule(
    session: AsyncSession, row: ChargeRuleRow, ends_on: date, *, expected_version: int | None, name: str
) -> ChargeRuleRow:
    """End a locked rule with the day before `ends_on`.

    Raises:
        EtagMismatch: it is not at `expected_version`.
    """
    check_version(row, expected_version, name)
    return await change(session, row, ends_on=ends_on)


async def list_rules(
    session: AsyncSession, tenant: str, *, scope: str, on: date | None, after: str, size: int
) -> Sequence[ChargeRuleRow]:
    """Return up to `size` rules of a tenant or the platform by id; of one scope, in force on one day, if given."""
    rule = ChargeRuleRow
    conditions: list[Any] = [col(rule.tenant_id) == tenant, col(rule.rule_id) > after]
    if scope:
        conditions.append(col(rule.scope) == scope)
    if on is not None:
        conditions += [col(rule.starts_on) <= on, or_(col(rule.ends_on).is_(None), col(rule.ends_on) > on)]
    query = select(rule).where(*conditions).order_by(col(rule.rule_id)).limit(size)
    return (await session.exec(query)).all()
