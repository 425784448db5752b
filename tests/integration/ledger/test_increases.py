"""Temporary increases as the tick counts them."""

import pytest
from tollhouse_server.errors import LimitExceeded

from tests.drivers.ledger import LedgerProcess, LedgerView, terms

_INCREASE = """
INSERT INTO limit_increase (tenant_id, increase_id, limit_id, amount, reason, state, requested_by, decided_by,
    starts_at, expires_at)
VALUES ('acme', 'more', $1, 1, 'a test', $2, 'one', 'another', now() + $3::text::interval, now() + $4::text::interval)
"""


@pytest.mark.parametrize(
    ("state", "starts_in", "ends_in", "counts"),
    [
        ("APPROVED", None, "1 hour", True),
        ("APPROVED", "-1 hour", "1 hour", True),
        ("APPROVED", "1 hour", "2 hours", False),
        ("APPROVED", None, "-1 second", False),
        ("REQUESTED", None, "1 hour", False),
        ("REJECTED", None, "1 hour", False),
        ("REVOKED", None, "1 hour", False),
    ],
)
async def test_an_increase_counts_when_it_is_approved_and_its_time_has_come(
    process: LedgerProcess, view: LedgerView, state: str, starts_in: str | None, ends_in: str, counts: bool
) -> None:
    """Then one more call is admitted, and no second."""
    limit = await view.add_limit("calls", "tenants/acme", "REQUESTS", "TOTAL", 1)
    await view.connection.execute(_INCREASE, limit, state, starts_in, ends_in)
    await view.connection.execute("UPDATE epoch SET value = value + 1 WHERE topic = 'limits'")

    admitted = 0
    for _ in range(3):
        try:
            await process.ledger.reserve(terms(), timeout_seconds=5)
        except LimitExceeded:
            break
        admitted += 1

    assert admitted == (2 if counts else 1)
