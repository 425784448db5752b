"""Makes statements: of a month that is not closed from the ledger as it is, of a closed one from what was sealed."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.chargeback import period_store, usage_store
from tollhouse_server.chargeback.adjustments import adjustment_entries
from tollhouse_server.chargeback.canonical import statement_of
from tollhouse_server.chargeback.cells import Month, MonthBooks, Saved
from tollhouse_server.chargeback.composing import compose
from tollhouse_server.chargeback.currencies import display_currency
from tollhouse_server.chargeback.forecast_store import read_daily
from tollhouse_server.chargeback.looking_ahead import is_running
from tollhouse_server.chargeback.periods import calendar_month, month_of_row, month_without_row, running_month
from tollhouse_server.chargeback.rates import rate_entries, steps_reach_beyond
from tollhouse_server.chargeback.reaching import reach_of
from tollhouse_server.chargeback.refusal_store import read_refused
from tollhouse_server.chargeback.return_store import read_alternatives
from tollhouse_server.chargeback.savings import savings
from tollhouse_server.chargeback.shared_costs import shared_entries, shares_reach_beyond
from tollhouse_server.chargeback.statement import Entry, EntryKind, PeriodState, Seal, Statement
from tollhouse_server.chargeback.tables import BillingPeriodRow, SealedStatementRow
from tollhouse_server.database.rows import kept_alive
from tollhouse_server.ledger.terms import Window
from tollhouse_server.names import DepartmentName, PeriodName, Scope, TenantName
from tollhouse_server.pricing.store import load
from tollhouse_server.reconciliation.true_ups import TrueUp, true_up_entries
from tollhouse_server.reporting.detail_store import PricedQuantity, read_label_costs, read_priced_quantities
from tollhouse_server.reporting.periods import Period, days_of, month_of
from tollhouse_server.reporting.questions import Reach
from tollhouse_server.tenancy.store import Clock, get_tenant, read_clock


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementQuestion:
    """Which statement is asked for: `month` empty means the current one; `gregorian` the calendar month."""

    scope: Scope
    month: str = ""
    gregorian: bool = False


async def make_statement(session: AsyncSession, question: StatementQuestion) -> Statement:
    """Return a statement. The session's transaction must have begun with `begin_snapshot`.

    Raises:
        ResourceNotFound: there is no such tenant.
        RecordsDropped: it takes records that were dropped after an export.
    """
    tenant = question.scope.tenant
    month, row = await statement_month(session, question)
    if row is not None and row.state == PeriodState.CLOSED.value:
        sealed = await period_store.find_sealed(session, PeriodName(tenant, month.name), _department(question.scope))
        if sealed is not None:
            return sealed_statement(row, sealed)
    state = PeriodState.OPEN if row is None else PeriodState(row.state)
    clock = await read_clock(session, tenant)
    books = await read_books(session, tenant, month, clock, department=_department(question.scope))
    # Adding up takes the processor for up to some seconds; others must not wait for it.
    return await kept_alive(session, asyncio.to_thread(compose, books, question.scope, state))


async def statement_month(session: AsyncSession, question: StatementQuestion) -> tuple[Month, BillingPeriodRow | None]:
    """Return the month that is asked for, and its row if it has one: as it was when it was previewed.

    Raises:
        ResourceNotFound: there is no such tenant.
    """
    clock = await read_clock(session, question.scope.tenant)
    if question.gregorian and clock.fiscal_month_start_day != 1:
        return calendar_month(question.month or month_of(clock.now, clock.zone), clock), None
    tenant = question.scope.tenant
    name = PeriodName(tenant, question.month or await running_month(session, tenant, clock))
    row = await period_store.find_period(session, name)
    return (await month_without_row(session, name, clock) if row is None else month_of_row(row)), row


async def read_books(
    session: AsyncSession, tenant: str, month: Month, clock: Clock, *, department: str = ""
) -> MonthBooks:
    """Read a tenant's month: everything that its statements and those of its departments are made from.

    With a department it is what the statement of that one alone is made from.
    """
    period, windows = month.period, [Window.FISCAL_MONTH.value]
    if clock.fiscal_month_start_day == 1 or not month.is_fiscal:
        windows = [Window.MONTH.value, *(windows if clock.fiscal_month_start_day == 1 else [])]
    await usage_store.make_room_for_sums(session)
    departments = await usage_store.read_departments(session, tenant)
    alternatives = await read_alternatives(session, tenant, month.name)
    reach = None
    if department:
        reach = await reach_of(session, tenant, month, department, departments=departments, alternatives=alternatives)
    quantities = await read_priced_quantities(session, tenant, period, reach)
    cells, days = await usage_store.read_cells(session, tenant, period, days_of(period, month.zone), reach)
    books = MonthBooks(
        tenant=tenant,
        display_name=(await get_tenant(session, TenantName(tenant))).display_name or tenant,
        month=month,
        read_at=clock.now,
        cells=cells,
        days=days,
        skus=await usage_store.read_sku_cells(session, tenant, period, reach),
        labels=await read_label_costs(session, tenant, period, reach),
        saved=await _saved(session, quantities, period),
        avoided_nanos=await usage_store.read_avoided(session, tenant, period),
        price_versions=_versions(quantities),
        limits=await usage_store.read_money_limits(session, tenant, windows=windows),
        departments=departments,
        currency=await display_currency(session, tenant, month),
        alternatives=alternatives,
        refused=await read_refused(session, tenant, month),
        daily=await read_daily(session, tenant, clock, reach) if is_running(month, clock.now) else (),
    )
    return replace(books, entries=await _entries(session, books, reach))


async def read_running(session: AsyncSession, tenant: str, clock: Clock, *, department: str = "") -> MonthBooks:
    """Return of the month that runs what a forecast is made from: its cost, the days before, and what is added.

    With a department it is what the forecast of that one alone is made from.
    """
    name = PeriodName(tenant, await running_month(session, tenant, clock))
    month = await month_without_row(session, name, clock)
    departments = await usage_store.read_departments(session, tenant)
    reach = await reach_of(session, tenant, month, department, departments=departments) if department else None
    cells, days = await usage_store.read_cells(session, tenant, month.period, days_of(month.period, month.zone), reach)
    books = MonthBooks(
        tenant=tenant,
        display_name=tenant,
        month=month,
        read_at=clock.now,
        cells=cells,
        days=days,
        skus=(),
        departments=departments,
        daily=await read_daily(session, tenant, clock, reach),
    )
    return replace(books, entries=await _entries(session, books, reach))


async def _entries(session: AsyncSession, books: MonthBooks, reach: Reach | None) -> tuple[Entry, ...]:
    """Return all entries of a month that depend on what is within reach, in the order in which they are stated."""
    tenant, month = books.tenant, books.month
    facts = used = books.facts()
    if reach is not None and await steps_reach_beyond(session, tenant, month, reach.departments):
        cells, _ = await usage_store.read_cells(session, tenant, month.period, days_of(month.period, month.zone))
        facts = used = replace(books, cells=cells).facts()
    elif reach is not None and await shares_reach_beyond(session, tenant, month):
        used = tuple(await usage_store.read_use(session, tenant, month.period))
    return (
        *await rate_entries(session, tenant, month, facts),
        *await shared_entries(session, tenant, month, used),
        *await adjustment_entries(session, tenant, month.name),
        *map(_true_up, await true_up_entries(session, tenant, month.period)),
    )


def _true_up(found: TrueUp) -> Entry:
    return Entry(
        kind=EntryKind.TRUE_UP,
        amount_nanos=found.amount_nanos,
        rule=found.variance,
        reason=found.reason,
        model=found.model,
        basis_nanos=found.basis_nanos,
    )


async def _saved(session: AsyncSession, quantities: Sequence[PricedQuantity], period: Period) -> tuple[Saved, ...]:
    versions = sorted({one.price_version for one in quantities if one.sku})
    books = {version: await load(session, version) for version in versions}
    # Adding up takes the processor; others must not wait for it.
    return await kept_alive(session, asyncio.to_thread(savings, quantities, books, period))


def _versions(quantities: Iterable[PricedQuantity]) -> dict[tuple[str, ...], frozenset[int]]:
    found: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for one in quantities:
        found[one.department_path].add(one.price_version)
    return {path: frozenset(versions) for path, versions in found.items()}


def sealed_statement(period: BillingPeriodRow, row: SealedStatementRow) -> Statement:
    """Return a statement as it was sealed."""
    seal = seal_of(period, row)
    return statement_of(row.document, generated_at=seal.closed_at, seal=seal)


def seal_of(period: BillingPeriodRow, row: SealedStatementRow) -> Seal:
    """Return the seal of a sealed statement."""
    return Seal(
        sha256=row.sha256,
        signature=row.signature,
        key_version=row.key_version,
        closed_at=period.closed_at or period.ends_at,
        closed_by=period.closed_by,
        tree_size=row.tree_size,
        leaf_index=row.leaf_index,
        path=tuple(row.path),
    )


def _department(scope: Scope) -> str:
    return scope.department if isinstance(scope, DepartmentName) else ""
