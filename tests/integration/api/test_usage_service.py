"""UsageService on records that went through the real ledger."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.v1 import usage_pb2 as pb
from tollhouse.v1.generation_pb2 import GenerateContentResponse
from tollhouse_server.api.outcomes import write_outcome
from tollhouse_server.api.permissions import permission_for
from tollhouse_server.api.services.usage_service import UsageService
from tollhouse_server.api.values import money, timestamp
from tollhouse_server.errors import InvalidRequest, ResourceNotFound
from tollhouse_server.generation.calls import Outcome, RouteTaken
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.pricing.price import Line, Priced
from tollhouse_server.pricing.skus import Unit
from tollhouse_server.pricing.usage import Tokens, Usage

from tests.drivers.books import Books, in_project, settlement
from tests.integration.api.callers import PAGES, ROBOT, by

LABELS = "tenants/acme/departments/vision/projects/labels"
MAY = datetime(2026, 5, 15, tzinfo=UTC)
USAGE = Usage(prompt=Tokens(text=9, image=3), cached=Tokens(text=2), candidates=Tokens(text=11), thoughts_tokens=4)
LINES = (
    Line(sku="input_text", quantity=9, unit=Unit.TOKEN, nanos_per_million=4_444_444, cost_nanos=40),
    Line(sku="output_text", quantity=11, unit=Unit.TOKEN, nanos_per_million=1_818_182, cost_nanos=20),
)


@pytest.fixture
async def service(books: Books) -> UsageService:
    """The service, over the books of tenant acme."""
    await books.add_tenant()
    return UsageService(books.database, PAGES)


def moment(at: datetime) -> Timestamp:
    """Return a Timestamp."""
    message = timestamp(at)
    assert message is not None
    return message


async def receipt_error(service: UsageService, request: pb.GetReceiptRequest) -> str:
    """Return the text of the refusal to show a receipt."""
    with pytest.raises(ResourceNotFound) as raised:
        await service.get_receipt(request, by())
    return str(raised.value)


# --- receipts ---------------------------------------------------------------------------------------------------------


async def test_a_receipt_is_the_one_that_the_call_was_answered_with(books: Books, service: UsageService) -> None:
    """By the request id or the attempt's: the same message, whenever it is asked for."""
    reservation = await books.reserve(cost_nanos=100)
    settled_at = await books.process.ledger.settle(reservation, settlement(60, usage=USAGE, lines=LINES))
    called = reservation.terms
    outcome = Outcome(
        attempt_id=called.attempt_id,
        request_id=called.request_id,
        scope=called.scope,
        route=RouteTaken(
            tier="flash", model="gemini-3.5-flash", target="gemini_api", account_id="main", region="", tried=()
        ),
        usage=USAGE,
        priced=Priced(cost_nanos=60, lines=LINES, price_version=1, service_tier="standard"),
        settled_at=settled_at,
    )
    answered = GenerateContentResponse().outcome
    write_outcome(answered, outcome)

    by_request = await service.get_receipt(pb.GetReceiptRequest(request_id=str(called.request_id)), by())
    by_attempt = await service.get_receipt(pb.GetReceiptRequest(request_id=str(called.attempt_id)), by())

    assert by_request == by_attempt == answered.receipt


async def test_the_receipt_of_a_call_that_went_elsewhere_is_that_of_the_attempt_that_served_it(
    books: Books, service: UsageService
) -> None:
    """The first attempt was refused upstream and cost nothing."""
    first = await books.book(kind=RecordKind.REFUSED)
    second = await books.book(60, first=False, request_id=first.request_id)

    receipt = await service.get_receipt(pb.GetReceiptRequest(request_id=str(first.request_id)), by())

    assert receipt.attempt_id == str(second.attempt_id)
    assert receipt.cost == money(60)


async def test_a_call_in_suspense_has_a_receipt_without_a_settlement(books: Books, service: UsageService) -> None:
    """What is booked provisionally is shown as that."""
    reservation = await books.suspend(cost_nanos=100)

    receipt = await service.get_receipt(pb.GetReceiptRequest(request_id=str(reservation.terms.request_id)), by())

    assert receipt.cost == money(100)
    assert not receipt.HasField("settled_at")


async def test_the_receipt_of_a_resolved_call_is_what_it_really_cost(books: Books, service: UsageService) -> None:
    """The correction is part of it."""
    reservation = await books.suspend(cost_nanos=100)
    await books.process.ledger.settle(reservation, settlement(60, lines=LINES))

    receipt = await service.get_receipt(pb.GetReceiptRequest(request_id=str(reservation.terms.request_id)), by())

    assert receipt.cost == money(60)
    assert sum(line.cost_nanos for line in receipt.lines) == 60
    assert receipt.HasField("settled_at")


async def test_a_receipt_that_one_may_not_see_is_like_one_that_never_was(books: Books, service: UsageService) -> None:
    """Under way, refused, of another project, of another tenant, made up: the same words."""
    await books.add_tenant("other")
    in_flight = await books.reserve()
    refused = await books.book(kind=RecordKind.REFUSED)
    sales = await books.book(scope=in_project("crm", "sales"))
    other = await books.book(scope=in_project("labels", "research", "vision", tenant="other"))
    ids = [
        in_flight.terms.request_id,
        refused.request_id,
        refused.attempt_id,
        sales.request_id,
        sales.attempt_id,
        other.request_id,
    ]

    errors = set()
    for one in [*ids, other.attempt_id, uuid4()]:
        error = await receipt_error(service, pb.GetReceiptRequest(request_id=str(one)))
        errors.add(error.replace(str(one), "ID"))

    assert errors == {f"{LABELS}/receipts/ID does not exist."}


async def test_a_project_under_a_wrong_department_has_no_receipts(books: Books, service: UsageService) -> None:
    """The permission was checked on sales, which the project is not part of."""
    booked = await books.book()
    wrong = "tenants/acme/departments/sales/projects/labels"

    error = await receipt_error(service, pb.GetReceiptRequest(parent=wrong, request_id=str(booked.attempt_id)))

    assert error == f"{wrong}/receipts/{booked.attempt_id} does not exist."


# --- summaries --------------------------------------------------------------------------------------------------------


async def test_a_summary_is_of_the_credentials_own_project_and_this_month(books: Books, service: UsageService) -> None:
    """Without a parent and a period; other projects and last year do not count."""
    await books.book(60, usage=USAGE)
    await books.book(100, at=MAY - timedelta(days=365))
    await books.book(1000, scope=in_project("crm", "sales"))

    summary = await service.get_usage_summary(pb.GetUsageSummaryRequest(), by())

    assert summary.parent == LABELS
    assert (summary.total.calls, summary.total.cost) == (1, money(60))
    assert summary.total.usage.total_tokens == USAGE.total_tokens
    assert summary.total.usage.prompt_tokens == 12
    assert summary.total.usage.candidates_tokens == 11
    assert summary.total.usage.thoughts_tokens == 4


async def test_a_credential_without_a_project_sums_up_its_tenant(books: Books, service: UsageService) -> None:
    """Its permission was checked there too."""
    await books.book(1)
    await books.book(10, scope=in_project("crm", "sales"))
    administrator = replace(ROBOT, project_id=None, department_ids=(), credential_name="tenants/acme/apiKeys/k9")

    summary = await service.get_usage_summary(pb.GetUsageSummaryRequest(), by(administrator))

    assert (summary.parent, summary.total.cost) == ("tenants/acme", money(11))


async def test_a_summary_names_its_groups_by_dimension(books: Books, service: UsageService) -> None:
    """Each group has a value for each dimension; the total has none."""
    await books.book(7, at=MAY)
    await books.suspend(at=MAY, cost_nanos=2)
    request = pb.GetUsageSummaryRequest(
        group_by=[pb.USAGE_DIMENSION_MODEL, pb.USAGE_DIMENSION_DAY],
        start_time=moment(MAY - timedelta(days=1)),
        end_time=moment(MAY + timedelta(days=1)),
    )

    summary = await service.get_usage_summary(request, by())

    (group,) = summary.groups
    assert dict(group.dimensions) == {"model": "gemini-3.5-flash", "day": "2026-05-15"}
    assert (group.calls, group.cost, group.suspense_cost) == (2, money(9), money(2))
    assert not summary.total.dimensions


async def test_a_summary_over_too_long_a_time_is_refused(service: UsageService) -> None:
    """It would read every record there is."""
    request = pb.GetUsageSummaryRequest(start_time=moment(datetime(1970, 1, 1, tzinfo=UTC)))

    with pytest.raises(InvalidRequest):
        await service.get_usage_summary(request, by())


async def test_a_period_that_ends_before_it_starts_is_refused(service: UsageService) -> None:
    """The field is named."""
    request = pb.GetUsageSummaryRequest(start_time=moment(MAY), end_time=moment(MAY - timedelta(days=1)))

    with pytest.raises(InvalidRequest) as raised:
        await service.get_usage_summary(request, by())

    assert raised.value.violations[0].path == "end_time"


@pytest.mark.parametrize("parent", ["tenants/acme/departments/none", f"{LABELS}x", "tenants/nobody"])
async def test_a_scope_that_is_not_there_is_not_found(service: UsageService, parent: str) -> None:
    """A misspelt name is no empty report."""
    with pytest.raises(ResourceNotFound):
        await service.get_usage_summary(pb.GetUsageSummaryRequest(parent=parent), by())


# --- records ----------------------------------------------------------------------------------------------------------


async def test_pages_of_records_are_stable_while_calls_go_on(books: Books, service: UsageService) -> None:
    """Newest first; three records of one moment are parted, new ones neither shift nor repeat a page."""
    old = [await books.book(cost, at=MAY) for cost in (1, 2, 3)]
    recent = [await books.book(cost) for cost in (4, 5)]
    request = pb.ListUsageRecordsRequest(page_size=2, start_time=moment(MAY - timedelta(days=1)))
    found: list[str] = []

    while True:
        page = await service.list_usage_records(request, by())
        assert len(page.usage_records) <= 2
        found += [record.name.rsplit("/", 1)[1] for record in page.usage_records]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        await books.book(1000)

    expected = [*reversed(recent), *sorted(old, key=lambda one: one.attempt_id, reverse=True)]
    assert found == [str(one.attempt_id) for one in expected]


async def test_a_page_token_is_good_for_its_own_question_only(books: Books, service: UsageService) -> None:
    """Another scope with the same token is refused."""
    for _ in range(2):
        await books.book()
    page = await service.list_usage_records(pb.ListUsageRecordsRequest(page_size=1), by())
    assert page.next_page_token

    with pytest.raises(InvalidRequest):
        await service.list_usage_records(
            pb.ListUsageRecordsRequest(parent="tenants/acme", page_token=page.next_page_token), by()
        )


async def test_a_record_says_what_was_used_and_how_it_stands(books: Books, service: UsageService) -> None:
    """Settled with its usage; in suspense without any, as none was reported; corrected by a difference."""
    await books.book(60, usage=USAGE, lines=LINES)
    reservation = await books.suspend(cost_nanos=100)
    await books.process.ledger.settle(reservation, settlement(60))

    records = (await service.list_usage_records(pb.ListUsageRecordsRequest(), by())).usage_records

    correction, suspended, served = records
    assert (served.state, served.usage.prompt_tokens, served.cost) == (pb.USAGE_RECORD_STATE_SETTLED, 12, money(60))
    assert (suspended.state, suspended.HasField("usage")) == (pb.USAGE_RECORD_STATE_SUSPENSE, False)
    assert (correction.state, correction.cost) == (pb.USAGE_RECORD_STATE_ADJUSTMENT, money(-40))
    assert (correction.cost.units, correction.cost.nanos) == (0, -40)
    assert (served.project, served.credential, served.route.account) == (LABELS, "k1", "accounts/main")
    assert dict(served.labels) == {"team": "a"}


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_the_limits_of_a_project_are_those_on_it_its_credential_and_all_above(
    books: Books, service: UsageService
) -> None:
    """The limits that a call of this credential meets, and no other."""
    for name, scope in (
        ("on-tenant", "tenants/acme"),
        ("on-research", "tenants/acme/departments/research"),
        ("on-vision", "tenants/acme/departments/vision"),
        ("on-labels", LABELS),
        ("on-key", ROBOT.credential_name),
        ("on-sales", "tenants/acme/departments/sales"),
        ("on-crm", "tenants/acme/departments/sales/projects/crm"),
    ):
        await books.view.add_limit(name, scope, "REQUESTS", "TOTAL", 5)

    own = await service.list_limits(pb.ListLimitsRequest(), by())
    research = await service.list_limits(pb.ListLimitsRequest(parent="tenants/acme/departments/research"), by())

    assert [one.limit.rsplit("/", 1)[1] for one in own.limits] == [
        "on-key",
        "on-labels",
        "on-research",
        "on-tenant",
        "on-vision",
    ]
    assert [one.limit.rsplit("/", 1)[1] for one in research.limits] == ["on-research", "on-tenant"]


async def test_a_limit_shows_what_is_held_and_settled_and_when_it_resets(books: Books, service: UsageService) -> None:
    """One call ended at 60, one in flight holds 100."""
    await books.view.add_limit("budget", "tenants/acme", "COST", "DAY", 1000, "tiers/flash")
    await books.book(60)
    await books.reserve(cost_nanos=100)

    (limit,) = (await service.list_limits(pb.ListLimitsRequest(), by())).limits

    assert (limit.amount, limit.held, limit.settled, limit.unit, limit.tier) == (1000, 100, 60, "nanos", "flash")
    assert limit.resets_at.ToDatetime(UTC) > datetime.now(UTC)
    assert not limit.HasField("requested")


async def test_a_limit_shows_what_it_allows_now(books: Books, service: UsageService) -> None:
    """With the increases that run, and how hard it is; calls in flight are counted as calls."""
    await books.view.add_limit("flow", "tenants/acme", "CONCURRENCY", "TOTAL", 5)
    raised = await books.view.add_limit("budget", "tenants/acme", "COST", "DAY", 1000)
    execute = books.view.connection.execute
    await execute("UPDATE usage_limit SET mode = 'SOFT' WHERE limit_id = $1", raised)
    for increase, amount, starts_in in (("runs", 10, -1), ("later", 100, 1)):
        await execute(
            "INSERT INTO limit_increase (tenant_id, increase_id, limit_id, amount, reason, state, requested_by, "
            "decided_by, starts_at, expires_at) VALUES ('acme', $1, $2, $3, 'x', 'APPROVED', 'a', 'b', "
            "now() + make_interval(hours => $4), now() + interval '1 day')",
            increase,
            raised,
            amount,
            starts_in,
        )

    budget, flow = (await service.list_limits(pb.ListLimitsRequest(), by())).limits

    assert (budget.amount, budget.mode, budget.unit) == (1010, "SOFT", "nanos")
    assert (flow.amount, flow.mode, flow.unit) == (5, "STRICT", "call")


async def test_limits_come_in_pages(books: Books, service: UsageService) -> None:
    """Each once, in the order of their names."""
    for name in ("c", "a", "b"):
        await books.view.add_limit(f"limit-{name}", "tenants/acme", "REQUESTS", "TOTAL", 5)
    first = await service.list_limits(pb.ListLimitsRequest(page_size=2), by())

    second = await service.list_limits(pb.ListLimitsRequest(page_size=2, page_token=first.next_page_token), by())

    assert [one.limit[-1] for one in (*first.limits, *second.limits)] == ["a", "b", "c"]
    assert not second.next_page_token


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "permission"),
    [
        (pb.GetUsageSummaryRequest, "usage.get"),
        (pb.ListLimitsRequest, "usage.list"),
        (pb.ListUsageRecordsRequest, "usage.list"),
        (pb.GetReceiptRequest, "usage.get"),
    ],
)
def test_the_permission_is_needed_on_the_parent_or_on_the_own_project(
    request_: type[pb.GetReceiptRequest], permission: str
) -> None:
    """Where the handler looks is where the chain has asked."""
    rule = permission_for(f"tollhouse.v1.UsageService.{request_.DESCRIPTOR.name.removesuffix('Request')}")

    assert rule.permission == permission
    assert rule.scope(request_(), ROBOT) == LABELS
    assert rule.scope(request_(parent="tenants/acme/departments/sales"), ROBOT) == "tenants/acme/departments/sales"
