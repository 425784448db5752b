"""The SQL of the rules for Google's SKUs that came as files."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.reconciliation.sku_map import SkuMap, packaged_map, parse_map


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuMapVersion:
    """A file of rules; the newest counts, over the packaged ones. Version 0 is the packaged rules alone."""

    version: int
    content: str
    rule_count: int
    created_by: str
    created_at: datetime | None


async def save_map(session: AsyncSession, content: str, *, creator: str) -> SkuMapVersion:
    """Put a file of rules in the place of the one before.

    Raises:
        InvalidRequest: it has defects.
    """
    insert = """
INSERT INTO sku_map (content, rule_count, created_by) VALUES (:content, :rule_count, :creator) RETURNING *
"""
    values = {"content": content, "rule_count": len(parse_map(content).rules), "creator": creator}
    return _version((await run_sql(session, insert, values)).one())


async def newest_map(session: AsyncSession) -> SkuMapVersion:
    """Return the file of rules that counts."""
    row = (await run_sql(session, "SELECT * FROM sku_map ORDER BY version DESC LIMIT 1")).one_or_none()
    if row is None:
        return SkuMapVersion(version=0, content="", rule_count=0, created_by="", created_at=None)
    return _version(row)


async def current_rules(session: AsyncSession) -> tuple[int, SkuMap]:
    """Return all rules that count, the packaged ones last, with the version of the file."""
    newest = await newest_map(session)
    return newest.version, parse_map(newest.content).over(packaged_map())


def _version(row: Any) -> SkuMapVersion:
    return SkuMapVersion(**row._mapping)
