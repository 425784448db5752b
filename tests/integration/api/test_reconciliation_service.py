"""ReconciliationService: pieces of a file in their order, once; dry runs leave nothing; everything is on the trail."""

from uuid import uuid4

import pytest
from tollhouse.admin.v1 import reconciliation_pb2 as pb
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.services.reconciliation_service import ReconciliationService
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import EtagMismatch, InvalidRequest, ResourceExists, ResourceNotFound, WrongState
from tollhouse_server.names import PLATFORM

from tests.drivers.bill_finance import BILL, LINE, OCTOBER, Finance, replaced
from tests.drivers.google_bill import Row, as_jsonl, changed, with_other_price
from tests.drivers.pages import all_pages
from tests.integration.api.callers import PAGES, by


@pytest.fixture
def service(finance: Finance) -> ReconciliationService:
    """The service over a ledger with calls of October."""
    database = finance.books.database
    return ReconciliationService(database, Mutations(database, b"key"), PAGES)


def piece(import_id: str, rows: list[Row], *, offset: int = 0, last: bool = False, **values: object) -> object:
    """Build the request for a piece."""
    return pb.ImportBillRequest(
        import_id=import_id,
        file_name="bill.jsonl",
        format=pb.BILL_FORMAT_JSONL,
        content=as_jsonl(rows),
        line_offset=offset,
        last=last,
        **values,  # type: ignore[arg-type]
    )


async def send(service: ReconciliationService, request: object) -> pb.BillImport:
    """Send a piece as the platform's finance."""
    assert isinstance(request, pb.ImportBillRequest)
    return await service.import_bill(request, by(domain=PLATFORM))


async def compared(service: ReconciliationService, rows: list[Row]) -> pb.BillReconciliation:
    """Import rows as one piece and compare October."""
    await send(service, piece(str(uuid4()), rows, last=True))
    return await service.reconcile_bill(pb.ReconcileBillRequest(month=OCTOBER), by(domain=PLATFORM))


async def variances(service: ReconciliationService, **values: object) -> list[pb.BillVariance]:
    """Read all differences, three a page."""
    request = pb.ListBillVariancesRequest(month=OCTOBER, page_size=3, **values)  # type: ignore[arg-type]
    return await all_pages(
        lambda asked: service.list_bill_variances(asked, by(domain=PLATFORM)), request, "bill_variances"
    )


async def test_a_file_comes_in_pieces_and_counts_when_it_is_whole(service: ReconciliationService) -> None:
    """Until the last piece nothing of it is part of the bill."""
    import_id = str(uuid4())
    first = await send(service, piece(import_id, BILL[:7]))
    before = await service.reconcile_bill(pb.ReconcileBillRequest(month=OCTOBER), by(domain=PLATFORM))

    whole = await send(service, piece(import_id, BILL[7:], offset=7, last=True))

    after = await service.reconcile_bill(pb.ReconcileBillRequest(month=OCTOBER), by(domain=PLATFORM))
    assert (first.state, first.line_count) == (pb.BillImport.STATE_RECEIVING, 7)
    assert (whole.state, whole.line_count) == (pb.BillImport.STATE_COMPLETE, len(BILL))
    assert (before.billed.units, before.variance_count > 0, after.variance_count) == (0, True, 0)


async def test_imports_are_listed_page_by_page(service: ReconciliationService) -> None:
    """The oldest first, none twice and none left out."""
    sent = [await send(service, piece(str(uuid4()), BILL[:1], last=True)) for _ in range(3)]
    request = pb.ListBillImportsRequest(page_size=1)

    listed = await all_pages(
        lambda asked: service.list_bill_imports(asked, by(domain=PLATFORM)), request, "bill_imports"
    )

    assert listed == sent


async def test_a_piece_out_of_order_is_refused(service: ReconciliationService) -> None:
    """None is lost, none counted twice, and a complete file takes no more."""
    import_id = str(uuid4())
    with pytest.raises(ResourceNotFound):
        await send(service, piece(import_id, BILL[7:], offset=7))
    await send(service, piece(import_id, BILL[:7]))

    with pytest.raises(ResourceExists):
        await send(service, piece(import_id, BILL[:7]))
    with pytest.raises(InvalidRequest):
        await send(service, piece(import_id, BILL[8:], offset=8))
    await send(service, piece(import_id, BILL[7:], offset=7, last=True))
    with pytest.raises(WrongState):
        await send(service, piece(import_id, BILL[:1], offset=len(BILL)))


async def test_a_piece_that_is_repeated_by_its_request_id_counts_once(service: ReconciliationService) -> None:
    """The answer is the first one."""
    request = piece(str(uuid4()), BILL[:7], request_id=str(uuid4()))

    first, again = await send(service, request), await send(service, request)

    assert (first, again.line_count) == (again, 7)


async def test_a_dry_run_of_all_pieces_leaves_nothing(service: ReconciliationService) -> None:
    """Each piece is checked for itself; a bad one is refused all the same."""
    import_id = str(uuid4())
    for offset in (0, 7):
        await send(service, piece(import_id, BILL[offset : offset + 7], offset=offset, validate_only=True))

    with pytest.raises(InvalidRequest):
        await send(service, piece(import_id, [changed(LINE, cost="?")], offset=14, validate_only=True))
    listed = await service.list_bill_imports(pb.ListBillImportsRequest(), by(domain=PLATFORM))
    assert list(listed.bill_imports) == []


async def test_differences_are_listed_by_page_and_filter(service: ReconciliationService) -> None:
    """All pages together are all, each once; a filter leaves the others out."""
    await compared(service, [*replaced(with_other_price(LINE, 2)), changed(LINE, project={"id": "google-gamma"})])
    bare = await service.reconcile_bill(pb.ReconcileBillRequest(month=OCTOBER), by(domain=PLATFORM))

    found = await variances(service)

    priced = await variances(service, reason=pb.BillVariance.REASON_PRICE_MISMATCH)
    assert (len(found), len({one.name for one in found})) == (bare.variance_count, bare.variance_count)
    assert [one.findings[0].reason for one in priced] == [pb.BillVariance.REASON_PRICE_MISMATCH]
    assert [one.google_project for one in await variances(service, google_project="google-gamma")] == ["google-gamma"]


async def test_a_month_that_was_not_compared_has_no_list(service: ReconciliationService) -> None:
    """Nothing found is something else than not looked at."""
    with pytest.raises(ResourceNotFound):
        await variances(service)


async def test_an_acceptance_is_by_name_on_the_trail_and_only_of_what_was_seen(
    service: ReconciliationService, finance: Finance
) -> None:
    """A dry run says what each tenant would be charged; an old etag is refused; the trail has who, what and why."""
    await compared(service, replaced(with_other_price(LINE, 50)))
    (found,) = await variances(service, blocking_only=True)
    request = pb.AcceptBillVarianceRequest(name=found.name, reason="agreed", etag=found.etag, validate_only=True)
    tried = await service.accept_bill_variance(request, by(domain=PLATFORM))
    await service.reconcile_bill(pb.ReconcileBillRequest(month=OCTOBER), by(domain=PLATFORM))
    request.validate_only = False
    with pytest.raises(EtagMismatch):
        await service.accept_bill_variance(request, by(domain=PLATFORM))
    request.etag = ""

    accepted = await service.accept_bill_variance(request, by(domain=PLATFORM))

    async with finance.books.database.transaction() as session:
        events = await list_events(session, PLATFORM)
    event = next(one for one in events if one.resource == found.name)
    assert (event.method.rpartition(".")[2], event.actor) == ("AcceptBillVariance", by().principal.name)
    assert list(tried.true_ups) == list(accepted.true_ups) != []
    assert (accepted.bill_variance.accepter, accepted.bill_variance.acceptance_reason) == (event.actor, "agreed")
    with pytest.raises(WrongState):
        await service.accept_bill_variance(request, by(domain=PLATFORM))
