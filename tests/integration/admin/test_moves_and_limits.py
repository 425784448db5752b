"""Limits along the tree before and after a move, and on two servers around the moment of one. No housekeeper runs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from tollhouse.admin.v1 import departments_pb2 as pb
from tollhouse.admin.v1 import projects_pb2
from tollhouse_server.api.department_moves import DueMoves
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.errors import LimitExceeded
from tollhouse_server.identity.directory import MAX_STALENESS_SECONDS, Directory
from tollhouse_server.ledger.terms import Scope
from tollhouse_server.names import ProjectName
from tollhouse_server.tenancy.project_paths import ProjectPaths

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, ledger_view, settled, terms
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import PATIENCE_SECONDS, PEPPER, Plane

TREE = ("group", "division", "region", "country", "team")
OTHER = ("holding", "labs")
MOVED = (*OTHER, *TREE[2:])
PROJECT = ProjectName("acme", "team", "app")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a worker has to find out where a call is booked, and to book it."""

    watch: EpochWatch
    directory: Directory
    paths: ProjectPaths
    process: LedgerProcess

    async def scope(self, key: str) -> Scope:
        """Return where a call with this key is booked, as the chain and the generation service find out."""
        principal = await self.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)
        return Scope(
            tenant_id=principal.tenant_id,
            department_path=principal.department_ids,
            project_id=str(principal.project_id),
            credential_id=principal.credential_id,
            credential_name=principal.credential_name,
            principal_id=principal.principal_id,
        )

    async def serve(self, key: str, count: int = 1) -> None:
        """Book calls one after the other.

        Raises:
            LimitExceeded: one of them was refused.
        """
        for _ in range(count):
            call = terms(scope=await self.scope(key))
            reservation = await self.process.ledger.reserve(call, timeout_seconds=5)
            await self.process.ledger.settle(reservation, settled())


@asynccontextmanager
async def running_server(dsn: str, *, watches: bool = True) -> AsyncIterator[Server]:
    """Run a server of its own connections; one that does not watch is one that was stopped, and goes on as it was."""
    async with AsyncExitStack() as stack:
        database = Database(dsn, pool_size=3)
        stack.push_async_callback(database.close)
        watch = EpochWatch(database)
        watch.before_reading(DueMoves(database).carry_out)
        directory, paths = Directory(database, watch, PEPPER), ProjectPaths(database, watch)
        process = await stack.enter_async_context(ledger_process(dsn))
        await watch.refresh()
        running = asyncio.create_task(watch.run() if watches else asyncio.sleep(0))
        try:
            yield Server(watch=watch, directory=directory, paths=paths, process=process)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """A five-level tree with a project at its bottom, another branch, and a key of the project."""

    plane: Plane
    view: LedgerView
    dsn: str
    key: str

    async def add_limits(self, *departments: str, amount: int = 10**6) -> dict[str, int]:
        """Put a limit of `amount` requests in all on each of the departments; return their ids."""
        return {
            one: await self.view.add_limit(f"on-{one}", f"tenants/acme/departments/{one}", "REQUESTS", "TOTAL", amount)
            for one in departments
        }

    async def counted(self, limits: dict[str, int]) -> dict[str, int]:
        """Return what each limit has counted."""
        return {one: sum(await self.view.counter(limit)) for one, limit in limits.items()}

    async def move(self, *, at: datetime | None = None) -> pb.Department:
        """Move the region, with country, team and project, from the division to the labs."""
        request = pb.MoveDepartmentRequest(
            name="tenants/acme/departments/region", parent_department="tenants/acme/departments/labs"
        )
        if at is not None:
            request.effective_time.FromDatetime(at)
        moved: pb.Department = await self.plane.call(request)
        return moved


@pytest.fixture
async def company(plane: Plane, fresh_database: TestDatabase) -> AsyncIterator[Company]:
    """The company in tenant acme."""
    await plane.tenant("acme")
    for branch in (TREE, OTHER):
        for above, name in zip(("", *branch), branch, strict=False):
            parent = f"tenants/acme/departments/{above}" if above else ""
            await plane.call(
                pb.CreateDepartmentRequest(
                    parent="tenants/acme", department_id=name, department=pb.Department(parent_department=parent)
                )
            )
    await plane.call(projects_pb2.CreateProjectRequest(parent="tenants/acme/departments/team", project_id="app"))
    key = await plane.key("acme", "robot", ("caller", str(PROJECT)), project=str(PROJECT))
    async with ledger_view(fresh_database.root_dsn) as view:
        yield Company(plane=plane, view=view, dsn=fresh_database.app_dsn, key=key)


async def test_limits_on_every_level_count_before_and_after_a_move(company: Company) -> None:
    """Those above the project by the path of the moment, and no others; what was counted stays where it was."""
    limits = await company.add_limits(*TREE, *OTHER)
    async with running_server(company.dsn, watches=False) as server:
        await server.serve(company.key, 3)
        before = await company.counted(limits)
        await company.move()
        await server.watch.refresh()
        await server.serve(company.key, 2)

    assert before == dict.fromkeys(TREE, 3) | dict.fromkeys(OTHER, 0)
    assert await company.counted(limits) == {
        "group": 3,
        "division": 3,
        "region": 5,
        "country": 5,
        "team": 5,
        "holding": 2,
        "labs": 2,
    }
    paths = await company.view.connection.fetch("SELECT department_path FROM usage_record ORDER BY settled_at")
    assert [tuple(row["department_path"]) for row in paths] == [TREE] * 3 + [MOVED] * 2


@pytest.mark.parametrize("level", TREE)
async def test_a_limit_on_each_level_refuses_before_a_move(company: Company, level: str) -> None:
    """The third call where two are allowed; after the move a limit on a department that was left refuses no more."""
    await company.add_limits(level, amount=2)
    async with running_server(company.dsn, watches=False) as server:
        await server.serve(company.key, 2)
        with pytest.raises(LimitExceeded, match=f"on-{level}"):
            await server.serve(company.key)

        await company.move()
        await server.watch.refresh()

        if level in MOVED:
            with pytest.raises(LimitExceeded, match=f"on-{level}"):
                await server.serve(company.key)
        else:
            await server.serve(company.key)


@pytest.mark.parametrize("level", OTHER)
async def test_a_limit_on_each_joined_level_refuses_after_a_move_only(company: Company, level: str) -> None:
    """Three calls before the move are none of its business; of three after it, the third is refused."""
    await company.add_limits(level, amount=2)
    async with running_server(company.dsn, watches=False) as server:
        await server.serve(company.key, 3)
        await company.move()
        await server.watch.refresh()

        await server.serve(company.key, 2)
        with pytest.raises(LimitExceeded, match=f"on-{level}"):
            await server.serve(company.key)


async def test_two_servers_count_by_the_new_path_from_the_moment_on_and_never_before(company: Company) -> None:
    """Without a housekeeper, within the two seconds that every change of identity has; mostly within a tenth of one."""
    limits = await company.add_limits("division", "labs", "team")
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    await company.move(at=at)
    async with running_server(company.dsn) as one, running_server(company.dsn) as two:
        ends = at + timedelta(seconds=MAX_STALENESS_SECONDS + 0.5)
        await asyncio.gather(*(keep_serving(server, company.key, until=ends) for server in (one, two)))

    rows = await company.view.connection.fetch(
        "SELECT dispatched_at, worker_epoch, department_path FROM usage_record ORDER BY dispatched_at"
    )
    booked = [(row["dispatched_at"], row["worker_epoch"], tuple(row["department_path"])) for row in rows]
    assert {path for moment, _, path in booked if moment < at} == {TREE}
    late = at + timedelta(seconds=MAX_STALENESS_SECONDS)
    assert {path for moment, _, path in booked if moment > late} == {MOVED}
    assert len({server for _, server, path in booked if path == MOVED}) == 2
    by_path = Counter(path for _, _, path in booked)
    assert await company.counted(limits) == {
        "division": by_path[TREE],
        "labs": by_path[MOVED],
        "team": len(booked),
    }


async def keep_serving(server: Server, key: str, *, until: datetime) -> None:
    """Make calls one after the other."""
    while datetime.now(UTC) < until:
        await server.serve(key)
        await asyncio.sleep(0.01)


async def test_a_server_that_was_stopped_over_the_moment_knows_when_it_goes_on(company: Company) -> None:
    """Nobody else was there to make the move: the first call waits for it, be it for the own project or another's."""
    at = datetime.now(UTC) + timedelta(seconds=0.5)
    await company.move(at=at)
    async with running_server(company.dsn, watches=False) as server:
        before = (await server.scope(company.key)).department_path, await server.paths.path_of(PROJECT)
        await asyncio.sleep(MAX_STALENESS_SECONDS + 0.6)

        goes_on = asyncio.create_task(server.watch.run())
        after = (await server.scope(company.key)).department_path, await server.paths.path_of(PROJECT)
        goes_on.cancel()
        await asyncio.gather(goes_on, return_exceptions=True)

    assert before == (TREE, TREE)
    assert after == (MOVED, MOVED)
