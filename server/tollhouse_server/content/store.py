"""The only SQL of this room. Every function works in its caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import defer
from sqlmodel import col, delete, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.content.tables import ContentPolicyRow, KeptContentRow
from tollhouse_server.content.terms import DEFAULT_RETENTION_DAYS, ContentPolicy, Keep, narrowed_to
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import EtagMismatch, ResourceNotFound
from tollhouse_server.names import (
    ContentName,
    DepartmentName,
    ProjectName,
    Scope,
    TenantName,
    domain_of,
    parse_scope,
)
from tollhouse_server.tenancy.store import require_active

MOST_DELETED: Final = 10_000
"""Rows that one request may delete."""

_KEYS = (col(KeptContentRow.tenant_id), col(KeptContentRow.attempt_id))

_EXPIRED = text("""
DELETE FROM kept_content WHERE (tenant_id, attempt_id) IN (
    SELECT tenant_id, attempt_id FROM kept_content WHERE expires_at <= now() ORDER BY expires_at LIMIT :size)
""")
# A retention that was shortened holds for what was kept before.
_OUTLIVED = text("""
DELETE FROM kept_content WHERE (tenant_id, attempt_id) IN (
    SELECT k.tenant_id, k.attempt_id FROM content_policy p CROSS JOIN LATERAL (
        SELECT tenant_id, attempt_id FROM kept_content
        WHERE tenant_id = p.tenant_id AND created_at <= now() - make_interval(days => p.retention_days)
        ORDER BY created_at LIMIT :size) k
    LIMIT :size)
""")
# What was sealed before a key was destroyed is noise. What is written in the same moment goes when its time is up.
_UNREADABLE = text("""
DELETE FROM kept_content WHERE (tenant_id, attempt_id) IN (
    SELECT k.tenant_id, k.attempt_id FROM (
        SELECT tenant_id, max(destroyed_at) AS destroyed_at FROM tenant_key
        WHERE destroyed_at IS NOT NULL GROUP BY tenant_id) d CROSS JOIN LATERAL (
        SELECT tenant_id, attempt_id FROM kept_content
        WHERE tenant_id = d.tenant_id AND created_at <= d.destroyed_at ORDER BY created_at LIMIT :size) k
    LIMIT :size)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentFilter:
    """Which kept content: below `scope`, of one principal or all, from `start` on and before `end`."""

    scope: Scope
    principal_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class ContentPosition:
    """A place in a list of kept content."""

    created_at: datetime
    attempt_id: UUID


# --- policies ---------------------------------------------------------------------------------------------------------


async def load_policies(session: AsyncSession) -> dict[str, ContentPolicy]:
    """Return the policies of all tenants that have anything kept."""
    rows = (await session.exec(select(ContentPolicyRow).where(ContentPolicyRow.keep != Keep.NONE))).all()
    return {row.tenant_id: _policy_of(row) for row in rows}


async def get_policy(session: AsyncSession, tenant: TenantName, *, lock: bool = False) -> ContentPolicyRow:
    """Return what a tenant has said; where it said nothing a row at version 0 that is not stored.

    Raises:
        ResourceNotFound: there is no such tenant.
    """
    # It locks the tenant too: two who say the first word come after each other.
    await require_active(session, tenant)
    query = select(ContentPolicyRow).where(ContentPolicyRow.tenant_id == tenant.tenant)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found = (await session.exec(query)).one_or_none()
    return found or ContentPolicyRow(
        tenant_id=tenant.tenant,
        keep=Keep.NONE,
        retention_days=DEFAULT_RETENTION_DAYS,
        scopes=[],
        must_keep=False,
        version=0,
    )


async def change_policy(
    session: AsyncSession, tenant: TenantName, values: Mapping[str, Any], *, version: int | None
) -> ContentPolicyRow:
    """Write some fields of a tenant's policy.

    Raises:
        ResourceNotFound: there is no such tenant, or no such department or project in it.
        EtagMismatch: the policy is not at `version`; 0 is that of a tenant that has said nothing.
    """
    row = await get_policy(session, tenant, lock=True)
    if version is not None and version != row.version:
        raise EtagMismatch(name=f"{tenant}/contentPolicy")
    for name in values.get("scopes", ()):
        await require_active(session, parse_scope(name, "content_policy.scopes"))
    if row.version and all(getattr(row, column) == value for column, value in values.items()):
        return row
    for column, value in values.items():
        setattr(row, column, value)
    row.version, row.updated_at = row.version + 1, datetime.now(UTC)
    row.created_at = row.created_at or row.updated_at
    session.add(row)
    await session.flush()
    return row


def _policy_of(row: ContentPolicyRow) -> ContentPolicy:
    scopes = tuple(scope for name in row.scopes if not isinstance(scope := parse_scope(name), TenantName))
    departments, projects = narrowed_to(scopes)
    return ContentPolicy(
        keep=Keep(row.keep),
        retention_days=row.retention_days,
        must_keep=row.must_keep,
        departments=departments,
        projects=projects,
    )


# --- content ----------------------------------------------------------------------------------------------------------


async def add_contents(session: AsyncSession, rows: Sequence[KeptContentRow]) -> None:
    """Write what is kept of some calls; what is there already stays, as after a commit that nobody heard of."""
    statement = postgresql.insert(KeptContentRow).on_conflict_do_nothing()
    await session.exec(statement, params=[row.model_dump() for row in rows])


async def get_content(session: AsyncSession, name: ContentName, scope: Scope | None) -> KeptContentRow:
    """Return what is kept of a call that was made below `scope`, None for the whole tenant.

    Raises:
        ResourceNotFound: nothing is kept of it, or not any more, or it was made elsewhere.
    """
    query = select(KeptContentRow).where(
        col(KeptContentRow.attempt_id) == UUID(name.attempt),
        *_conditions(ContentFilter(scope=scope or TenantName(name.tenant))),
    )
    row = (await session.exec(query)).one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(name))
    return row


async def list_contents(
    session: AsyncSession, wanted: ContentFilter, *, after: ContentPosition | None, size: int
) -> list[KeptContentRow]:
    """Return what is kept, the newest first, without prompts and answers."""
    query = select(KeptContentRow).where(*_conditions(wanted))
    if after is not None:
        place = tuple_(col(KeptContentRow.created_at), col(KeptContentRow.attempt_id))
        query = query.where(place < (after.created_at, after.attempt_id))
    query = query.order_by(col(KeptContentRow.created_at).desc(), col(KeptContentRow.attempt_id).desc()).limit(size)
    query = query.options(defer(KeptContentRow.prompt), defer(KeptContentRow.answer))  # type: ignore[arg-type]
    return list((await session.exec(query)).all())


async def count_contents(session: AsyncSession, wanted: ContentFilter) -> int:
    """Return of how many calls something is kept."""
    return (await session.exec(select(func.count()).select_from(KeptContentRow).where(*_conditions(wanted)))).one()


async def delete_contents(session: AsyncSession, wanted: ContentFilter) -> int:
    """Delete what is kept of the oldest calls, at most MOST_DELETED, and return how many there were."""
    oldest = select(*_KEYS).where(*_conditions(wanted)).order_by(col(KeptContentRow.created_at)).limit(MOST_DELETED)
    return (await session.exec(delete(KeptContentRow).where(tuple_(*_KEYS).in_(oldest)))).rowcount


async def delete_content(session: AsyncSession, row: KeptContentRow) -> None:
    """Delete what is kept of one call."""
    await session.delete(row)
    await session.flush()


async def delete_outdated(session: AsyncSession, *, size: int) -> int:
    """Delete some of what has been kept for long enough or can never be read again; return how much it was."""
    return sum([(await run_sql(session, sql, {"size": size})).rowcount for sql in (_EXPIRED, _OUTLIVED, _UNREADABLE)])


def _conditions(wanted: ContentFilter) -> list[ColumnElement[bool]]:
    found = [
        col(KeptContentRow.tenant_id) == domain_of(str(wanted.scope)),
        # What has expired is gone, whether or not it was swept away yet.
        col(KeptContentRow.expires_at) > func.now(),
    ]
    match wanted.scope:
        case DepartmentName(department=department):
            found.append(col(KeptContentRow.department_path).contains([department]))
        case ProjectName(project=project):
            found.append(col(KeptContentRow.project_id) == project)
    if wanted.principal_id is not None:
        found.append(col(KeptContentRow.principal_id) == wanted.principal_id)
    if wanted.start is not None:
        found.append(col(KeptContentRow.created_at) >= wanted.start)
    if wanted.end is not None:
        found.append(col(KeptContentRow.created_at) < wanted.end)
    return found
