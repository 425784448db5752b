"""Prices that one person proposes and another approves."""

import asyncio

import asyncpg
import pytest
from tollhouse.admin.v1 import prices_pb2 as pb
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    PermissionDenied,
    PriceProposalOutdated,
    PricesImplausible,
    RequesterOnly,
    ResourceNotFound,
    SecondPersonNeeded,
    WrongState,
)
from tollhouse_server.names import PLATFORM

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.limits import ledger_of
from tests.integration.admin.plane import Plane
from tests.integration.admin.prices import (
    MODEL,
    demand_second_person,
    file_of,
    importing,
    input_cents,
    keeper,
    proposing,
    step,
)

States = pb.PriceProposal


async def test_an_import_becomes_a_proposal_where_a_second_person_is_demanded(plane: Plane) -> None:
    """Nothing is in force until another approves; then it is the version that the import would have made."""
    await plane.call(importing(file_of("2")))
    demand_second_person(plane)
    ann, ben = await keeper(plane, "ann"), await keeper(plane, "ben")

    answer = await plane.call(importing(file_of("3")))
    waiting = await input_cents(plane)
    shown = await plane.call(pb.GetPriceProposalRequest(name=answer.proposal.name), key=ben)
    approved = await plane.call(step("approve", answer.proposal.name, decision_reason="as agreed"), key=ann)

    assert not answer.HasField("price_book")
    assert waiting == [200]
    assert list(shown.changes) == list(answer.changes) == list(approved.changes)
    assert {change.after.amount.units for change in shown.changes} == {3}
    assert (approved.state, approved.price_book) == (States.STATE_APPROVED, "priceBooks/2")
    assert await input_cents(plane) == [300]
    book = await plane.call(pb.GetPriceBookRequest(name="priceBooks/current"))
    assert book.importer == "tenants/platform/principals/administrator"
    assert book.approver == approved.decider == "tenants/platform/principals/ann"


async def test_nobody_approves_what_he_proposed(plane: Plane, fresh_database: TestDatabase) -> None:
    """Not in a dry run either; and should the code ever forget, the database does not."""
    ann = await keeper(plane, "ann")
    proposal = await plane.call(proposing(file_of("2")), key=ann)

    for validate_only in (True, False):
        with pytest.raises(SecondPersonNeeded):
            await plane.call(step("approve", proposal.name, validate_only=validate_only), key=ann)
    async with ledger_of(fresh_database.root_dsn) as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="price_proposal_second_person"):
            await connection.execute(
                "INSERT INTO price_book_version (version, origin, digest, price_count) VALUES (9, 'IMPORTED', '', 0);"
                "UPDATE price_proposal SET state = 'APPROVED', decided_by = requested_by, price_version = 9"
            )

    with pytest.raises(ResourceNotFound):
        await plane.call(pb.GetPriceBookRequest(name="priceBooks/current"))


async def test_a_proposal_is_kept_as_it_was_made(plane: Plane, fresh_database: TestDatabase) -> None:
    """The server itself cannot change what was proposed, only how it was decided, and cannot delete it."""
    await plane.call(proposing(file_of("2")))

    async with ledger_of(fresh_database.app_dsn) as connection:
        for statement in ("UPDATE price_proposal SET content = 'x'", "DELETE FROM price_proposal"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_who_may_nothing_with_prices_may_not_propose_or_approve(plane: Plane) -> None:
    """Finance of a tenant reads prices, and keeps none of the platform's."""
    await plane.tenant("acme")
    finance = await plane.key("acme", "fin", ("finance", "tenants/acme"))
    proposal = await plane.call(proposing(file_of("2")))

    for request in (proposing(file_of("3")), step("approve", proposal.name), step("reject", proposal.name)):
        with pytest.raises(PermissionDenied):
            await plane.call(request, key=finance)
    assert await input_cents(plane) == []


async def test_rejected_and_withdrawn_proposals_stay_so(plane: Plane) -> None:
    """Only who proposed withdraws; what is decided is not decided again."""
    ann, ben = await keeper(plane, "ann"), await keeper(plane, "ben")
    one, other = [await plane.call(proposing(file_of(dollars)), key=ann) for dollars in ("2", "3")]

    with pytest.raises(RequesterOnly):
        await plane.call(step("withdraw", one.name), key=ben)
    withdrawn = await plane.call(step("withdraw", one.name), key=ann)
    rejected = await plane.call(step("reject", other.name, decision_reason="too dear"), key=ben)

    assert (withdrawn.state, rejected.state) == (States.STATE_WITHDRAWN, States.STATE_REJECTED)
    for name in (one.name, other.name):
        with pytest.raises(WrongState):
            await plane.call(step("approve", name), key=ben)
    listed = await plane.call(pb.ListPriceProposalsRequest(state=States.STATE_REJECTED))
    assert [(one.name, one.decision_reason, len(one.changes)) for one in listed.price_proposals] == [
        (other.name, "too dear", 0)
    ]


async def test_a_proposal_that_nobody_decides_on_expires(plane: Plane, fresh_database: TestDatabase) -> None:
    """From its expiry on it can be neither approved nor rejected."""
    ben = await keeper(plane, "ben")
    proposal = await plane.call(proposing(file_of("2")))
    async with ledger_of(fresh_database.root_dsn) as connection:
        await connection.execute("UPDATE price_proposal SET expires_at = now() - interval '1 second'")

    for verb in ("approve", "reject"):
        with pytest.raises(WrongState):
            await plane.call(step(verb, proposal.name), key=ben)

    listed = await plane.call(pb.ListPriceProposalsRequest(state=States.STATE_EXPIRED))
    assert [one.name for one in listed.price_proposals] == [proposal.name]
    assert not (await plane.call(pb.ListPriceProposalsRequest(state=States.STATE_REQUESTED))).price_proposals


async def test_what_is_approved_is_what_was_shown(plane: Plane) -> None:
    """When the book has changed since, the difference would be another one: it must be proposed anew."""
    ben = await keeper(plane, "ben")
    proposal = await plane.call(proposing(file_of("2")))
    await plane.call(importing(file_of("3", model="gemini-y")))

    with pytest.raises(PriceProposalOutdated, match="version 1 is in force"):
        await plane.call(step("approve", proposal.name), key=ben)
    with pytest.raises(EtagMismatch):
        await plane.call(step("reject", proposal.name, etag="v7"), key=ben)

    assert (await plane.call(pb.GetPriceBookRequest(name="priceBooks/current"))).version == 1


async def test_of_two_who_decide_at_once_one_does(plane: Plane) -> None:
    """One version comes of it, whoever is faster."""
    keys = [await keeper(plane, name) for name in ("ann", "ben", "cem")]
    proposal = await plane.call(proposing(file_of("2")))

    outcomes = await asyncio.gather(
        *(plane.call(step("approve", proposal.name), key=key) for key in keys), return_exceptions=True
    )

    assert sorted(type(one).__name__ for one in outcomes) == ["PriceProposal", "WrongState", "WrongState"]
    assert (await plane.call(pb.GetPriceBookRequest(name="priceBooks/current"))).version == 1


async def test_a_proposal_is_checked_when_it_is_made(plane: Plane) -> None:
    """Nobody is asked to approve what cannot be meant, or by a day that is past or too far."""
    await plane.call(importing(file_of("2")))
    late = proposing(file_of("3"))
    late.expire_time.FromJsonString("2099-01-01T00:00:00Z")

    with pytest.raises(PricesImplausible):
        await plane.call(proposing(file_of("21")))
    with pytest.raises(InvalidRequest, match="expire_time"):
        await plane.call(late)
    with pytest.raises(InvalidRequest, match="reason"):
        await plane.call(proposing(file_of("21"), allowances=pb.PriceAllowances(allow_jumps=True)))

    assert not (await plane.call(pb.ListPriceProposalsRequest())).price_proposals


async def test_an_allowance_travels_with_its_proposal(plane: Plane) -> None:
    """Who approves sees that jumps were allowed, and why."""
    ben = await keeper(plane, "ben")
    await plane.call(importing(file_of("2")))
    allowed = pb.PriceAllowances(allow_jumps=True, reason="a new contract")
    proposal = await plane.call(proposing(file_of("50"), allowances=allowed))

    shown = await plane.call(pb.GetPriceProposalRequest(name=proposal.name))
    await plane.call(step("approve", proposal.name), key=ben)

    assert (shown.allowances.allow_jumps, shown.allowances.reason) == (True, "a new contract")
    assert await input_cents(plane) == [5_000]


async def test_a_dry_run_keeps_nothing_and_every_step_is_on_the_trail(plane: Plane) -> None:
    """Who proposed and who approved, with the file's digest."""
    ben = await keeper(plane, "ben")
    dry = await plane.call(proposing(file_of("2"), validate_only=True))
    with pytest.raises(ResourceNotFound):
        await plane.call(pb.GetPriceProposalRequest(name=dry.name))
    proposal = await plane.call(proposing(file_of("2")))
    await plane.call(step("approve", proposal.name), key=ben)

    async with plane.database.transaction() as session:
        events = [one for one in await list_events(session, PLATFORM) if one.resource == proposal.name]

    assert [event.method.rsplit(".", 1)[1] for event in events] == ["ProposePrices", "ApprovePriceProposal"]
    assert [event.actor.rsplit("/", 1)[1] for event in events] == ["administrator", "ben"]
    assert all(event.after["contentSha256"] == proposal.content_sha256 for event in events if event.after)
    assert MODEL not in str(events[0].after)
