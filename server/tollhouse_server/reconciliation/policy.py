"""Above which difference a month cannot be closed without somebody who accepts it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import EtagMismatch
from tollhouse_server.reconciliation.variances import Compared, LineKey

MILLION: Final = 1_000_000
POLICY_NAME: Final = "reconciliationPolicy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationPolicy:
    """The platform's bounds. `share_millionths` is of the larger of what was booked and billed.

    `rounding_nanos` is how much rounding one line of Google's bill can make.
    """

    absolute_nanos: int
    share_millionths: int
    rounding_nanos: int
    version: int

    def exceeds(self, unexplained_nanos: int, whole_nanos: int) -> bool:
        """Tell whether a difference is above both bounds, against the whole that it is a part of."""
        size = abs(unexplained_nanos)
        return size > self.absolute_nanos and size * MILLION > abs(whole_nanos) * self.share_millionths


def blocking_lines(policy: ReconciliationPolicy, lines: Iterable[Compared]) -> frozenset[LineKey]:
    """Return the lines that block: each that is above the bounds by itself, and the others where they are together."""
    unexplained = [line for line in lines if line.unexplained_nanos]
    above = {
        line.key
        for line in unexplained
        if policy.exceeds(line.unexplained_nanos, max(line.booked_nanos, line.billed_nanos))
    }
    small = [line for line in unexplained if line.key not in above]
    whole = max(sum(line.booked_nanos for line in small), sum(line.billed_nanos for line in small))
    if policy.exceeds(sum(abs(line.unexplained_nanos) for line in small), whole):
        above |= {line.key for line in small}
    return frozenset(above)


async def read_policy(session: AsyncSession, *, lock: bool = False) -> ReconciliationPolicy:
    """Return the platform's bounds."""
    query = "SELECT * FROM reconciliation_policy"
    if lock:
        query += " FOR UPDATE"
    return _policy((await run_sql(session, query)).one())


async def write_policy(
    session: AsyncSession, *, absolute_nanos: int, share_millionths: int, rounding_nanos: int, version: int | None
) -> ReconciliationPolicy:
    """Change the bounds; they count from the next reconciliation of a month on.

    Raises:
        EtagMismatch: somebody else has changed them since `version`.
    """
    now = await read_policy(session, lock=True)
    if version is not None and now.version != version:
        raise EtagMismatch(name=POLICY_NAME)
    wanted = {
        "absolute_nanos": absolute_nanos,
        "share_millionths": share_millionths,
        "rounding_nanos": rounding_nanos,
    }
    update = """
UPDATE reconciliation_policy SET absolute_nanos = :absolute_nanos, share_millionths = :share_millionths,
    rounding_nanos = :rounding_nanos, version = version + 1, updated_at = clock_timestamp() RETURNING *
"""
    return _policy((await run_sql(session, update, wanted)).one())


def _policy(row: Any) -> ReconciliationPolicy:
    return ReconciliationPolicy(
        absolute_nanos=row.absolute_nanos,
        share_millionths=row.share_millionths,
        rounding_nanos=row.rounding_nanos,
        version=row.version,
    )
