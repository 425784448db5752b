"""Calls of tenant acme whose outcome is known only after the month in which they were made."""

from uuid import UUID

import pytest
from tollhouse.admin.v1 import chargeback_pb2 as pb
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.api.values import nanos_of
from tollhouse_server.errors import PeriodObstructed
from tollhouse_server.ledger.suspense_store import Resolution, Ruling, get_suspense, resolve
from tollhouse_server.ledger.terms import Amounts
from tollhouse_server.names import SuspenseName

from tests.drivers.books import Books, settlement
from tests.integration.api.callers import ROBOT, by
from tests.integration.chargeback.test_close import BOB, MAY, NAME, closed, service

__all__ = ["service"]


async def ruled(books: Books, attempt_id: UUID, resolution: Resolution, actual: Amounts | None = None) -> None:
    """Say what an attempt of unknown outcome came to."""
    ruling = Ruling(resolution=resolution, actual=actual, resolved_by="users/finance", reason="asked Google")
    async with books.database.transaction() as session:
        await resolve(session, await get_suspense(session, SuspenseName("acme", str(attempt_id))), ruling)


async def stated(service: ChargebackService) -> dict[str, int]:
    """Return the cost of every month that is stated, by its name."""
    months = await service.list_periods(pb.ListPeriodsRequest(parent="tenants/acme"), by(ROBOT))
    costs = {}
    for month in (one.name.rpartition("/")[2] for one in months.periods):
        statement = await service.get_statement(pb.GetStatementRequest(parent="tenants/acme", month=month), by(ROBOT))
        costs[month] = nanos_of(statement.totals.cost, "cost")
    return costs


@pytest.mark.parametrize(
    ("resolution", "actual", "cost"),
    [
        (Resolution.VOID, None, 0),
        (Resolution.ACCEPT, None, 70),
        (Resolution.ACTUAL, Amounts(requests=1, input_tokens=1, output_tokens=1, cost_nanos=33), 33),
    ],
)
async def test_every_nano_dollar_is_in_one_statement_however_late_it_is_known(
    books: Books, service: ChargebackService, resolution: Resolution, actual: Amounts | None, cost: int
) -> None:
    """In May what was booked then; what was found out after it, in the month in which it was."""
    unknown = await books.suspend(at=MAY, cost_nanos=70)
    under_way = await books.reserve(cost_nanos=500)
    with pytest.raises(PeriodObstructed, match="in suspense"):
        await closed(books, service)

    await ruled(books, unknown.terms.attempt_id, resolution, actual)
    answer = await service.close_period(pb.ClosePeriodRequest(name=NAME), by(BOB))
    await books.process.ledger.settle(under_way, settlement(400))
    by_month = await stated(service)

    booked = await books.view.connection.fetchval("SELECT sum(cost_nanos)::bigint FROM usage_record")
    assert answer.period.state == pb.Period.STATE_CLOSED
    assert (by_month["2026-05"], sum(by_month.values()), booked) == (170, 100 + cost + 400, 100 + cost + 400)
