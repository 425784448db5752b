"""The close of a month: the statements of the tenant and all departments are sealed, and nothing changes any more."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback import adjustments, period_store
from tollhouse_server.chargeback.canonical import canonical_json, digest, signed_text
from tollhouse_server.chargeback.cells import MonthBooks
from tollhouse_server.chargeback.composing import compose_from
from tollhouse_server.chargeback.layout import TENANT, Layout, lay_out
from tollhouse_server.chargeback.periods import Obstacle, month_of_row, obstacles, read_period, require_open
from tollhouse_server.chargeback.statement import PeriodState
from tollhouse_server.chargeback.statements import read_books
from tollhouse_server.chargeback.tables import BillingPeriodRow, SealedStatementRow
from tollhouse_server.database.rows import change, check_version, kept_alive
from tollhouse_server.errors import PeriodObstructed, SecondPersonNeeded
from tollhouse_server.names import DepartmentName, PeriodName, TenantName
from tollhouse_server.tenancy.store import read_clock
from tollhouse_server.vault.signing import Proof


class Signer(Protocol):
    """What signs documents together, as `vault.signing.SigningKey` does."""

    async def sign(self, documents: Sequence[bytes]) -> Sequence[Proof]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Who takes a step with a month, which version of it he has seen (None: any), and until when records are final."""

    name: PeriodName
    actor: str
    watermark: datetime
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A month that was closed, or of a dry run would be but for the obstacles, and its sealed statements."""

    period: BillingPeriodRow
    sealed: Sequence[SealedStatementRow]
    obstacles: Sequence[Obstacle]


async def preview(session: AsyncSession, step: Step) -> BillingPeriodRow:
    """Put an open month up for preview.

    Raises:
        PeriodClosed, WrongState: it is not OPEN.
        PeriodObstructed: it is not over.
        EtagMismatch: it has changed since it was seen.
    """
    row = await read_period(session, step.name, lock=True)
    check_version(row, step.version, str(step.name))
    require_open(row, PeriodState.OPEN)
    if step.watermark < row.ends_at:
        raise PeriodObstructed(name=str(step.name), obstacles=f"it ends at {row.ends_at.isoformat()}")
    now = (await read_clock(session, step.name.tenant)).now
    return await change(session, row, state=PeriodState.PREVIEW.value, previewed_at=now, previewed_by=step.actor)


async def reopen(session: AsyncSession, step: Step) -> BillingPeriodRow:
    """Take a preview back.

    Raises:
        PeriodClosed, WrongState: it is not in PREVIEW.
        EtagMismatch: it has changed since it was seen.
    """
    row = await read_period(session, step.name, lock=True)
    check_version(row, step.version, str(step.name))
    require_open(row, PeriodState.PREVIEW)
    return await change(session, row, state=PeriodState.OPEN.value, previewed_at=None, previewed_by="")


async def close(session: AsyncSession, step: Step, signer: Signer) -> Closed:
    """Seal and lock a previewed month. The partitions that it touches must be guarded already.

    Raises:
        PeriodClosed, WrongState: it is not in PREVIEW.
        PeriodObstructed: something stands against it.
        SecondPersonNeeded: the actor has entered an adjustment of it.
        EtagMismatch: it has changed since it was seen.
        VaultUnavailable: nothing can be signed now.
    """
    row = await read_period(session, step.name, lock=True)
    check_version(row, step.version, str(step.name))
    require_open(row, PeriodState.PREVIEW)
    found = await obstacles(session, row, watermark=step.watermark)
    if found:
        raise PeriodObstructed(name=str(step.name), obstacles="; ".join(one.description for one in found))
    own = (await adjustments.creators(session, row.tenant_id, row.month)).get(step.actor)
    if own is not None:
        raise SecondPersonNeeded(name=own)
    sealed = await _sealed(session, row)
    now = (await read_clock(session, row.tenant_id)).now
    proofs = await signer.sign([signed_text(one.sha256, closed_at=now, closed_by=step.actor) for one in sealed])
    for one, proof in zip(sealed, proofs, strict=True):
        one.signature = base64.b64encode(proof.signature.value).decode()
        one.key_version = proof.signature.key_version
        one.tree_size, one.leaf_index = proof.tree_size, proof.leaf_index
        one.path = [step.hex() for step in proof.path]
    await period_store.save_sealed(session, sealed)
    closed = await change(
        session, row, state=PeriodState.CLOSED.value, closed_at=now, closed_by=step.actor, sha256=sealed[0].sha256
    )
    return Closed(period=closed, sealed=sealed, obstacles=())


async def rehearse(session: AsyncSession, step: Step) -> Closed:
    """Return what a close would seal, unsigned, and all that stands against it.

    Raises:
        PeriodClosed: it is closed.
        EtagMismatch: it has changed since it was seen.
    """
    row = await read_period(session, step.name)
    check_version(row, step.version, str(step.name))
    if row.state == PeriodState.CLOSED.value:
        require_open(row, PeriodState.PREVIEW)
    found = await obstacles(session, row, watermark=step.watermark)
    return Closed(period=row, sealed=await _sealed(session, row), obstacles=found)


async def _sealed(session: AsyncSession, row: BillingPeriodRow) -> list[SealedStatementRow]:
    month = month_of_row(row)
    books = await read_books(session, row.tenant_id, month, await read_clock(session, row.tenant_id))
    # Adding up takes the processor for some seconds, of thousands of departments for a minute: others must not wait.
    return await kept_alive(session, asyncio.to_thread(_texts, books))


def _texts(books: MonthBooks) -> list[SealedStatementRow]:
    """Return the statements as they are sealed, that of the tenant first, then those of departments by id."""
    departments = {one for cell in books.cells for one in cell.department_path} | books.departments.keys()
    scopes = [TENANT, *sorted(departments)]
    layout = lay_out(books, scopes)
    return [_text(layout, department) for department in scopes]


def _text(layout: Layout, department: str) -> SealedStatementRow:
    books = layout.books
    scope = DepartmentName(books.tenant, department) if department else TenantName(books.tenant)
    text = canonical_json(compose_from(layout, scope, PeriodState.CLOSED))
    return SealedStatementRow(
        tenant_id=books.tenant,
        month=books.month.name,
        department_id=department,
        document=text,
        sha256=digest(text),
        signature="",
        key_version=0,
        tree_size=0,
        leaf_index=0,
        path=[],
    )
