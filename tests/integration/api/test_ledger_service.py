"""Suspense in the hands of administrators: listed, and resolved on every counter, once, whoever else is at it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import ledger_pb2 as pb
from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.ledger_service import LedgerService
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import InvalidRequest, RequestIdReused, ResourceNotFound, WrongState
from tollhouse_server.identity.principal import Principal
from tollhouse_server.ledger.terms import Reservation, suspended
from tollhouse_server.ledger.verification import LedgerVerification
from tollhouse_server.reporting.rollup_findings import rollup_findings

from tests.drivers.books import Books, in_project
from tests.drivers.ledger import settled

ANN = Principal(
    tenant_id="acme",
    principal_id="ann",
    credential_id="k9",
    credential_name="tenants/acme/apiKeys/k9",
    project_id=None,
    department_ids=(),
    environment="live",
)
ACCEPT, VOID, ACTUAL = pb.SUSPENSE_RESOLUTION_ACCEPT, pb.SUSPENSE_RESOLUTION_VOID, pb.SUSPENSE_RESOLUTION_ACTUAL


@dataclass(slots=True)
class Desk:
    """The service over the books of tenant acme, with a limit of each metric."""

    books: Books
    service: LedgerService
    limits: dict[str, int]

    async def suspend(self, **changes: Any) -> Reservation:
        """Put one call into suspense at its ceiling."""
        return await self.books.suspend(**changes)

    async def resolve(self, reservation: Reservation, resolution: int, **values: Any) -> pb.ResolveSuspenseResponse:
        """Resolve one attempt."""
        request = pb.ResolveSuspenseRequest(
            name=name_of(reservation),
            resolution=pb.SuspenseResolution.ValueType(resolution),
            reason="the bill",
            **values,
        )
        return await self.service.resolve_suspense(request, a_call("ResolveSuspense"))

    async def listed(self, **values: Any) -> list[str]:
        """Return the names that a list has, page by page."""
        names: list[str] = []
        wanted: dict[str, Any] = {"parent": "tenants/acme", "page_size": 2} | values
        request = pb.ListSuspenseRequest(**wanted)
        while True:
            page = await self.service.list_suspense(request, a_call("ListSuspense"))
            names += [one.name for one in page.suspense]
            if not page.next_page_token:
                return names
            request.page_token = page.next_page_token

    async def settled(self) -> dict[str, int]:
        """Return what is settled on each limit."""
        return {name: (await self.books.view.counter(limit))[1] for name, limit in self.limits.items()}

    async def adds_up(self) -> bool:
        """Tell whether a verification finds nothing."""
        request = pb.VerifyLedgerRequest(parent="tenants/acme")
        answers = [answer async for answer in self.service.verify_ledger(request, a_call("VerifyLedger"))]
        return answers[-1].summary.finding_count == 0 and not answers[-1].summary.truncated


@pytest.fixture
async def desk(books: Books) -> AsyncIterator[Desk]:
    """Books of tenant acme with limits on cost, requests and output tokens."""
    await books.add_tenant()
    limits = {
        metric: await books.view.add_limit(metric.lower(), "tenants/acme", metric, "MONTH", 10**9)
        for metric in ("COST", "REQUESTS", "OUTPUT_TOKENS")
    }
    service = LedgerService(
        books.database,
        Mutations(books.database, b"fingerprints"),
        PageTokens(b"pages"),
        LedgerVerification(books.database, rollup_findings),
    )
    yield Desk(books, service, limits)


def a_call(method: str) -> Call:
    """Return a call of Ann's with ten seconds left."""
    rpc = f"tollhouse.admin.v1.LedgerService/{method}"
    return Call(
        rpc=rpc, principal=ANN, domain=ANN.tenant_id, deadline=time.monotonic() + 10, correlation_id=uuid4().hex
    )


def name_of(reservation: Reservation) -> str:
    """Return the resource name of an attempt in suspense."""
    return f"tenants/acme/suspense/{reservation.terms.attempt_id}"


def dollars(nanos: int) -> Money:
    """Return nano-dollars below one dollar as Money."""
    return Money(currency_code="USD", nanos=nanos)


@pytest.mark.parametrize(
    ("resolution", "values", "expected"),
    [
        (ACCEPT, {}, {"COST": 100, "REQUESTS": 1, "OUTPUT_TOKENS": 20}),
        (VOID, {}, {"COST": 0, "REQUESTS": 0, "OUTPUT_TOKENS": 0}),
        (ACTUAL, {"actual": pb.ActualUsage(cost=dollars(41))}, {"COST": 41, "REQUESTS": 1, "OUTPUT_TOKENS": 20}),
        (
            ACTUAL,
            {"actual": pb.ActualUsage(cost=dollars(141), output_tokens=0)},
            {"COST": 141, "REQUESTS": 1, "OUTPUT_TOKENS": 0},
        ),
    ],
)
async def test_resolving_corrects_every_counter(
    desk: Desk, resolution: int, values: dict[str, Any], expected: dict[str, int]
) -> None:
    """By a record of the difference; the books add up before and after."""
    suspended_call = await desk.suspend()

    answer = await desk.resolve(suspended_call, resolution, **values)

    assert await desk.settled() == expected
    assert answer.suspense.outcome.cost.nanos == expected["COST"]
    assert answer.adjustment.cost.nanos == expected["COST"] - 100
    assert await desk.books.view.records() == [("SUSPENSE", 100), ("ADJUSTMENT", expected["COST"] - 100)]
    assert {one.limit: one.settled_after.money.nanos or one.settled_after.units for one in answer.counters} == {
        f"tenants/acme/limits/{metric.lower()}": value for metric, value in expected.items()
    }
    assert await desk.adds_up()


async def test_what_is_resolved_says_by_whom_and_why(desk: Desk) -> None:
    """And is no longer among the open ones."""
    suspended_call = await desk.suspend()

    await desk.resolve(suspended_call, VOID)

    entry = await desk.service.get_suspense(pb.GetSuspenseRequest(name=name_of(suspended_call)), a_call("GetSuspense"))
    assert (entry.resolution, entry.resolver, entry.reason) == (VOID, "tenants/acme/principals/ann", "the bill")
    assert (entry.cause, entry.model, entry.ceiling.nanos) == ("WORKER_DIED", "gemini-3.5-flash", 100)
    assert await desk.listed() == []
    assert await desk.listed(show_resolved=True) == [name_of(suspended_call)]


async def test_the_trail_has_the_act(desk: Desk) -> None:
    """With the entry before, and the adjustment."""
    suspended_call = await desk.suspend()

    await desk.resolve(suspended_call, VOID)

    async with desk.books.database.transaction() as session:
        (event,) = await list_events(session, "acme")
    assert (event.actor, event.permission, event.resource) == (
        "tenants/acme/principals/ann",
        "suspense.resolve",
        name_of(suspended_call),
    )
    assert event.before is not None
    assert event.before["booked"]["cost"]["nanos"] == 100
    assert event.after is not None
    assert event.after["adjustment"]["cost"]["nanos"] == -100


async def test_a_dry_run_shows_the_adjustment_and_changes_nothing(desk: Desk) -> None:
    """It is the same transaction, rolled back."""
    suspended_call = await desk.suspend()

    answer = await desk.resolve(suspended_call, VOID, validate_only=True)

    assert answer.adjustment.cost.nanos == -100
    assert (await desk.settled())["COST"] == 100
    assert await desk.listed() == [name_of(suspended_call)]


async def test_a_repetition_is_answered_as_the_first_time(desk: Desk) -> None:
    """With the same request id nothing is booked twice; with another one it is too late."""
    suspended_call, request_id = await desk.suspend(), str(uuid4())

    first = await desk.resolve(suspended_call, VOID, request_id=request_id)
    again = await desk.resolve(suspended_call, VOID, request_id=request_id)

    assert first == again
    with pytest.raises(RequestIdReused):
        await desk.resolve(suspended_call, ACCEPT, request_id=request_id)
    with pytest.raises(WrongState):
        await desk.resolve(suspended_call, ACCEPT)
    assert len(await desk.books.view.records()) == 2


async def test_a_late_settlement_comes_first_or_last_but_not_twice(desk: Desk) -> None:
    """A worker that was only slow and an administrator go for the same row at the same moment, twenty times."""
    calls = [await desk.suspend() for _ in range(20)]

    async def administrator(reservation: Reservation) -> bool:
        try:
            await desk.resolve(reservation, VOID)
        except WrongState:
            return False
        return True

    ruled = await asyncio.gather(
        *(administrator(one) for one in calls),
        *(desk.books.process.ledger.settle(one, settled(40)) for one in calls),
    )

    voided = sum(1 for one in ruled if one is True)
    records = await desk.books.view.records()
    assert [kind for kind, _ in records].count("ADJUSTMENT") == 20
    assert (await desk.settled())["COST"] == 40 * (20 - voided)
    assert await desk.adds_up()


async def test_resolving_under_traffic_loses_nothing(desk: Desk) -> None:
    """Ticks and administrators lock the same counters in the same order."""
    calls = [await desk.suspend() for _ in range(10)]

    await asyncio.gather(
        *(desk.resolve(one, ACTUAL, actual=pb.ActualUsage(cost=dollars(7))) for one in calls),
        *(desk.books.book(30) for _ in range(30)),
    )

    assert (await desk.settled())["COST"] == 10 * 7 + 30 * 30
    assert await desk.books.view.count("attempt") == 0


async def test_a_counter_that_rises_has_its_alerts_looked_at_again(desk: Desk) -> None:
    """The next tick works out what the next threshold is; one that falls needs no look."""
    execute = desk.books.view.connection.execute
    calls = [await desk.suspend() for _ in range(2)]
    await execute("UPDATE counter SET alert_at = 5")

    await desk.resolve(calls[0], VOID)
    fallen = await desk.books.view.connection.fetchval("SELECT count(*) FROM counter WHERE alert_at = 5")
    await desk.resolve(calls[1], ACTUAL, actual=pb.ActualUsage(cost=dollars(101)))
    risen = await desk.books.view.connection.fetchval("SELECT count(*) FROM counter WHERE alert_at = 0")

    assert (fallen, risen) == (3, 1)


async def test_the_list_is_of_a_scope_and_oldest_first(desk: Desk) -> None:
    """Departments with all below them, a project in its department, by cause and by age."""
    crm = in_project("crm", "sales")
    calls = [await desk.suspend(), await desk.suspend(scope=crm), await desk.suspend()]
    broken = await desk.books.reserve()
    await desk.books.process.ledger.settle(broken, replace(suspended(broken), outcome="BROKEN:reset"))
    everything = [name_of(one) for one in (*calls, broken)]

    assert await desk.listed() == everything
    assert await desk.listed(parent="tenants/acme/departments/sales") == [everything[1]]
    assert await desk.listed(parent="tenants/acme/departments/research") == [everything[n] for n in (0, 2, 3)]
    assert await desk.listed(parent="tenants/acme/departments/sales/projects/crm") == [everything[1]]
    assert await desk.listed(cause="BROKEN") == [everything[3]]
    before = Timestamp()
    before.FromDatetime(datetime.now(UTC) - timedelta(hours=1))
    assert await desk.listed(suspended_before=before) == []


@pytest.mark.parametrize(
    "values",
    [
        {"resolution": ACTUAL},
        {"resolution": ACTUAL, "actual": pb.ActualUsage(output_tokens=1)},
        {"resolution": ACTUAL, "actual": pb.ActualUsage(cost=dollars(-1))},
        {"resolution": VOID, "actual": pb.ActualUsage(cost=dollars(1))},
        {"resolution": VOID, "reason": "  "},
    ],
)
async def test_a_ruling_that_makes_no_sense_is_refused(desk: Desk, values: dict[str, Any]) -> None:
    """Before anything is booked."""
    suspended_call = await desk.suspend()
    request = pb.ResolveSuspenseRequest(**{"name": name_of(suspended_call), "reason": "the bill"} | values)

    with pytest.raises(InvalidRequest):
        await desk.service.resolve_suspense(request, a_call("ResolveSuspense"))

    assert len(await desk.books.view.records()) == 1


async def test_what_was_never_in_suspense_is_not_found(desk: Desk) -> None:
    """Nor another tenant's."""
    booked = await desk.books.book(5)

    for tenant, attempt in (("acme", booked.attempt_id), ("other", booked.attempt_id), ("acme", UUID(int=0))):
        with pytest.raises(ResourceNotFound):
            await desk.service.get_suspense(
                pb.GetSuspenseRequest(name=f"tenants/{tenant}/suspense/{attempt}"), a_call("GetSuspense")
            )


async def test_a_verification_of_a_missing_tenant_says_so(desk: Desk) -> None:
    """It would add up, being nothing."""
    request = pb.VerifyLedgerRequest(parent="tenants/nobody")

    with pytest.raises(ResourceNotFound):
        _ = [answer async for answer in desk.service.verify_ledger(request, a_call("VerifyLedger"))]
