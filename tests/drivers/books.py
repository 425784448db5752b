"""A company's books: its tree, and records that went through the real ledger, moved to the day they are for."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger.terms import Amounts, CallTerms, RecordKind, Reservation, Scope, Settlement, suspended
from tollhouse_server.pricing.price import Line
from tollhouse_server.pricing.usage import Usage

from tests.drivers.ledger import SCOPE, LedgerProcess, LedgerView, ledger_process, ledger_view, terms
from tests.drivers.postgres import TestDatabase


@dataclass(slots=True)
class Books:
    """Writes through the ledger as the server does; reads as the server does."""

    database: Database
    process: LedgerProcess
    view: LedgerView

    async def add_tenant(self, tenant_id: str = "acme", time_zone: str = "UTC") -> None:
        """Insert a tenant with department `research` > `vision` and project `labels`, and department `sales`."""
        execute = self.view.connection.execute
        await execute("INSERT INTO tenant (tenant_id, time_zone) VALUES ($1, $2)", tenant_id, time_zone)
        for department, parent, path in (
            ("research", None, "research"),
            ("vision", "research", "research.vision"),
            ("sales", None, "sales"),
        ):
            await execute(
                "INSERT INTO department (tenant_id, department_id, parent_id, path) "
                "VALUES ($1, $2, $3, $4::text::ltree)",
                tenant_id,
                department,
                parent,
                path,
            )
        for project, department in (("labels", "vision"), ("crm", "sales")):
            await execute(
                "INSERT INTO project (tenant_id, project_id, department_id) VALUES ($1, $2, $3)",
                tenant_id,
                project,
                department,
            )

    async def reserve(self, *, scope: Scope = SCOPE, **changes: Any) -> Reservation:
        """Admit a call whose ceiling is `cost_nanos`."""
        return await self.process.ledger.reserve(terms(scope=scope, **changes), timeout_seconds=5)

    async def book(
        self,
        cost_nanos: int = 100,
        *,
        at: datetime | None = None,
        usage: Usage | None = None,
        lines: Sequence[Line] = (),
        kind: RecordKind = RecordKind.SETTLED,
        **changes: Any,
    ) -> CallTerms:
        """Book a call that cost `cost_nanos`, at the moment `at` if one is given; return its terms."""
        reservation = await self.reserve(cost_nanos=cost_nanos, **changes)
        await self.process.ledger.settle(reservation, settlement(cost_nanos, usage=usage, lines=lines, kind=kind))
        await self.move(reservation, at)
        return reservation.terms

    async def suspend(self, *, at: datetime | None = None, **changes: Any) -> Reservation:
        """Book a call of unknown outcome at its ceiling."""
        reservation = await self.reserve(**changes)
        await self.process.ledger.settle(reservation, suspended(reservation))
        await self.move(reservation, at)
        return reservation

    async def move(self, reservation: Reservation, at: datetime | None) -> None:
        """Put the records of an attempt at another moment."""
        if at is not None:
            await self.view.connection.execute(
                "UPDATE usage_record SET settled_at = $2 WHERE attempt_id = $1", reservation.terms.attempt_id, at
            )


def settlement(
    cost_nanos: int = 100,
    *,
    usage: Usage | None = None,
    lines: Sequence[Line] = (),
    kind: RecordKind = RecordKind.SETTLED,
) -> Settlement:
    """Build how a call of 9 input and 11 output tokens ended, or of what `usage` says."""
    known = usage is not None
    actual = Amounts(
        requests=1,
        input_tokens=usage.input_tokens if usage is not None else 9,
        output_tokens=usage.output_tokens if usage is not None else 11,
        images=usage.images if usage is not None else 0,
        cost_nanos=cost_nanos,
    )
    return Settlement(
        kind=kind,
        actual=Amounts() if kind is RecordKind.REFUSED else actual,
        outcome="SERVED",
        usage=json.dumps(asdict(usage)) if known and usage is not None else "{}",
        lines=json.dumps([asdict(line) for line in lines]),
    )


def in_project(project: str, *departments: str, tenant: str = "acme", credential: str = "k1") -> Scope:
    """Build the scope of a project below `departments`, the root first."""
    return replace(SCOPE, tenant_id=tenant, department_path=departments, project_id=project, credential_id=credential)


@pytest.fixture
async def books(fresh_database: TestDatabase) -> AsyncIterator[Books]:
    """The books of an empty database."""
    async with books_in(fresh_database) as books:
        yield books


@asynccontextmanager
async def books_in(place: TestDatabase) -> AsyncIterator[Books]:
    """Keep the books of a database until the block is left."""
    database = Database(place.app_dsn)
    try:
        async with ledger_view(place.root_dsn) as view, ledger_process(place.app_dsn) as process:
            yield Books(database, process, view)
    finally:
        await database.close()
