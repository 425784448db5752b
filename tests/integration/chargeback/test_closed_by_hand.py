"""Months of tenant acme that somebody closes by SQL, with the rights of the application's role."""

from tollhouse_server.api.services.chargeback_service import ChargebackService

from tests.drivers.books import Books
from tests.integration.chargeback.test_close import by_hand, closed, service

__all__ = ["service"]

_INSERT = """
INSERT INTO billing_period (tenant_id, month, state, starts_at, ends_at, time_zone, is_fiscal)
VALUES ('acme', '{month}', '{state}', {starts}, {ends}, 'UTC', false)
"""
_RUNNING = {
    "month": "2099-01",
    "starts": "now() - interval '1 day'",
    "ends": "now() + interval '1 day'",
}
_CLOSE = "UPDATE billing_period SET state = 'CLOSED', ends_at = {ends} WHERE month = '2099-01'"
_OBSTACLE = "TH001"


async def test_a_month_that_runs_is_closed_by_nobody(books: Books, service: ChargebackService) -> None:
    """It would refuse every call of its tenant from then on; one that is over closes as ever."""
    control = {"role": "tollhouse_control", "tenant": "acme"}

    assert await by_hand(books, _INSERT.format(state="CLOSED", **_RUNNING), **control) == _OBSTACLE
    assert await by_hand(books, _INSERT.format(state="PREVIEW", **_RUNNING), **control) == "done"
    assert await by_hand(books, _CLOSE.format(ends="ends_at"), **control) == _OBSTACLE
    await books.book(5)
    assert (await closed(books, service)).period.closer
