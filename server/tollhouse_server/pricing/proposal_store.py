"""The SQL of price proposals: made by one, decided by another, over at their expiry."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlmodel import and_, col, func, or_, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.decisions import APPROVE, EXPIRED, REQUESTED, Decision, require_step
from tollhouse_server.database.integrity import constraints
from tollhouse_server.database.rows import change, check_version, find, insert
from tollhouse_server.errors import EtagMismatch, PriceProposalOutdated, SecondPersonNeeded
from tollhouse_server.names import PriceProposalName
from tollhouse_server.pricing import store
from tollhouse_server.pricing.imports import Import, Imported, book_with, import_file, require_plausible
from tollhouse_server.pricing.tables import PriceProposalRow
from tollhouse_server.pricing.terms import PriceBook

_ROW: Final = PriceProposalRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalView:
    """A proposal and the state that it has at the moment of the question."""

    row: PriceProposalRow
    state: str


async def propose(session: AsyncSession, row: PriceProposalRow, wanted: Import) -> tuple[ProposalView, Imported]:
    """Keep a file for another person, and return what its import would make of the book.

    Raises:
        EtagMismatch: another version is in force than `wanted.base_version`.
        PricesImplausible: see `import_file`.
    """
    before = await store.load(session)
    if wanted.base_version not in (0, before.version):
        raise EtagMismatch(name=f"priceBooks/{before.version}")
    row.base_version = before.version
    imported = _would_make(wanted, before)
    require_plausible(wanted, imported.before, imported.after)
    return ProposalView(row=await insert(session, row), state=row.state), imported


def _would_make(wanted: Import, before: PriceBook) -> Imported:
    """Return what an import would make of a book."""
    after = book_with(before, wanted.parsed)
    return Imported(row=store.version_row(after, wanted.parsed, importer=wanted.importer), before=before, after=after)


async def preview(session: AsyncSession, row: PriceProposalRow, wanted: Import) -> Imported:
    """Return the books between which the proposal stands, whatever became of it."""
    return _would_make(wanted, await store.load(session, row.base_version))


async def view_proposal(session: AsyncSession, name: PriceProposalName, *, lock: bool = False) -> ProposalView:
    """Return a proposal; with `lock`, nobody else decides on it until the transaction ends.

    Raises:
        ResourceNotFound: there is none.
    """
    row = await find(session, select(_ROW).where(_ROW.proposal_id == name.price_proposal), name, lock=lock)
    return ProposalView(row=row, state=_state(row, await read_now(session)))


async def decide(session: AsyncSession, proposal: ProposalView, decision: Decision, wanted: Import) -> ProposalView:
    """Take a step with a locked proposal; approved, it is in force as the next version.

    Raises:
        EtagMismatch: it is not at `decision.expected_version`.
        WrongState: the step does not lead on from the state that it is in.
        SecondPersonNeeded: it would be approved by who proposed it.
        RequesterOnly: it would be withdrawn by somebody else.
        PriceProposalOutdated: the book has changed since.
        PricesImplausible: it can no longer be meant.
    """
    row = proposal.row
    name = str(PriceProposalName(row.proposal_id))
    check_version(row, decision.expected_version, name)
    require_step(name, decision, state=proposal.state, requester=row.requested_by)
    version = await _put_in_force(session, row, wanted) if decision.step is APPROVE else None
    with constraints({"price_proposal_second_person": SecondPersonNeeded(name=name)}):
        await change(session, row, price_version=version, **decision.taken_at(await read_now(session)))
    return ProposalView(row=row, state=decision.step.leads_to)


async def _put_in_force(session: AsyncSession, row: PriceProposalRow, wanted: Import) -> int:
    imported = await import_file(session, wanted)
    if imported.before.version != row.base_version:
        raise PriceProposalOutdated(
            name=str(PriceProposalName(row.proposal_id)),
            base_version=row.base_version,
            current_version=imported.before.version,
        )
    return imported.row.version


async def list_proposals(
    session: AsyncSession, *, state: str, after: tuple[datetime, str] | None, size: int
) -> list[ProposalView]:
    """Return up to `size` proposals in a state (empty: all), the newest first, after the one of a moment and id."""
    place = tuple_(col(_ROW.created_at), col(_ROW.proposal_id))
    query = select(_ROW, func.now()).order_by(col(_ROW.created_at).desc(), col(_ROW.proposal_id).desc()).limit(size)
    if state:
        query = query.where(_is_in(state))
    if after is not None:
        query = query.where(place < tuple_(*after))
    return [ProposalView(row=row, state=_state(row, now)) for row, now in (await session.exec(query)).all()]


async def read_now(session: AsyncSession) -> datetime:
    """Return the database's time: not the transaction's, which may have waited for a lock since."""
    now: datetime = (await session.exec(select(func.clock_timestamp()))).one()
    return now


def _state(row: PriceProposalRow, now: datetime) -> str:
    return EXPIRED if row.state == REQUESTED and row.expires_at <= now else row.state


def _is_in(state: str) -> Any:
    """Return the condition that `_state` is `state`."""
    stored, is_over = col(_ROW.state), col(_ROW.expires_at) <= func.now()
    if state == EXPIRED:
        return and_(stored == REQUESTED, is_over)
    return and_(stored == state, or_(stored != REQUESTED, ~is_over))
