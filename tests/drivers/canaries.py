"""Tenants whose every name and word is a canary, and callers of theirs who hang up at random moments.

Whatever a caller hears, answers, parts of streams, lists, errors with their details, is searched for the canaries of
the other tenants. All of them use the same request ids, so that an id of one stands in the way of none of the others.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import grpc
from google.protobuf.message import Message
from tollhouse.admin.v1 import api_keys_pb2 as keys
from tollhouse.admin.v1 import api_keys_pb2_grpc as keys_grpc
from tollhouse.admin.v1 import departments_pb2 as departments
from tollhouse.admin.v1 import departments_pb2_grpc as departments_grpc
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.admin.v1 import limits_pb2_grpc as limits_grpc
from tollhouse.admin.v1 import principals_pb2 as principals
from tollhouse.admin.v1 import principals_pb2_grpc as principals_grpc
from tollhouse.admin.v1 import projects_pb2 as projects
from tollhouse.admin.v1 import projects_pb2_grpc as projects_grpc
from tollhouse.admin.v1 import roles_pb2 as roles
from tollhouse.admin.v1 import roles_pb2_grpc as roles_grpc
from tollhouse.admin.v1 import tenants_pb2 as tenants
from tollhouse.admin.v1 import tenants_pb2_grpc as tenants_grpc
from tollhouse.admin.v1 import usage_reports_pb2 as reports
from tollhouse.admin.v1 import usage_reports_pb2_grpc as reports_grpc
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tests.drivers.administration import Administration, dollars
from tests.drivers.callers import bearer, prompt
from tests.drivers.stack import RunningStack

_SECONDS: Final = 30.0
_LONGEST_PATIENCE_SECONDS: Final = 0.2
_PATIENT: Final = 0.2
"""The share of calls that are heard to their end."""

_SHARED_IDS: Final = 400
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True, slots=True)
class CanaryTenant:
    """A tenant; `canary` is its id, and stands in each of its names. `poor_key` is of a department without money."""

    canary: str
    caller_key: str
    poor_key: str
    admin_key: str

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.canary}"

    @property
    def department(self) -> str:
        """The resource name of the department that calls."""
        return f"{self.name}/departments/{self.canary}"


@dataclass(slots=True)
class Overheard:
    """What came of the calls: how they ended, how many messages were looked through, and what was of somebody else."""

    canaries: Sequence[str]
    told: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    crossed: list[str] = field(default_factory=list)

    def note(self, tenant: CanaryTenant, where: str, *heard: bytes) -> None:
        """Look through what a tenant's caller has heard."""
        for one in heard:
            self.messages += 1
            self.crossed += [
                f"{where} of {tenant.canary} has {other}"
                for other in self.canaries
                if other != tenant.canary and other.encode() in one
            ]


def add_canary_tenants(stack: RunningStack, dice: random.Random, count: int) -> list[CanaryTenant]:
    """Make tenants, each with a department that may call, one that has no money left, and an administrator."""
    with grpc.insecure_channel(stack.grpc) as channel:
        return [_add(channel, stack.admin_api_key, f"canary-{dice.getrandbits(48):012x}") for _ in range(count)]


def _add(channel: grpc.Channel, key: str, canary: str) -> CanaryTenant:
    tenant = f"tenants/{canary}"
    tenants_grpc.TenantServiceStub(channel).CreateTenant(
        tenants.CreateTenantRequest(tenant_id=canary, tenant=tenants.Tenant(display_name=canary)), metadata=bearer(key)
    )
    administration = Administration(channel, key, tenant)
    caller_key, poor_key = administration.add_department(canary), administration.add_department(f"poor-{canary}")
    administration.add_limit(
        f"budget-{canary}",
        f"{tenant}/departments/poor-{canary}",
        limits.LIMIT_METRIC_COST,
        limits.LIMIT_WINDOW_MONTH,
        dollars(1),
    )
    return CanaryTenant(canary, caller_key, poor_key, _add_administrator(channel, key, tenant, f"boss-{canary}"))


def _add_administrator(channel: grpc.Channel, key: str, tenant: str, principal: str) -> str:
    metadata, name = bearer(key), f"{tenant}/principals/{principal}"
    account = principals.Principal(kind=principals.Principal.KIND_SERVICE_ACCOUNT)
    principals_grpc.PrincipalServiceStub(channel).CreatePrincipal(
        principals.CreatePrincipalRequest(parent=tenant, principal_id=principal, principal=account), metadata=metadata
    )
    grant = roles.RoleGrant(principal=name, role="roles/tenant-admin", scope=tenant)
    roles_grpc.RoleServiceStub(channel).CreateRoleGrant(
        roles.CreateRoleGrantRequest(parent=tenant, role_grant=grant), metadata=metadata
    )
    answer = keys_grpc.ApiKeyServiceStub(channel).CreateApiKey(
        keys.CreateApiKeyRequest(parent=tenant, api_key=keys.ApiKey(principal=name)), metadata=metadata
    )
    return str(answer.secret)


class Visitor:
    """One tenant's callers, on a connection of their own."""

    def __init__(self, channel: grpc.aio.Channel, tenant: CanaryTenant, overheard: Overheard, seed: int) -> None:
        self._tenant = tenant
        self._overheard = overheard
        self._dice = random.Random(seed)
        self._generation = GenerationServiceStub(channel)
        self._lists = _lists(channel, tenant)
        self._departments = departments_grpc.DepartmentServiceStub(channel)

    async def visit(self) -> None:
        """Make a call of some kind and hang up at some moment, mostly before it is answered."""
        kinds: tuple[Callable[[], Awaitable[None]], ...] = (self._ask, self._read, self._look, self._look, self._change)
        await self._dice.choice(kinds)()

    async def look_everywhere(self) -> None:
        """Read each list to its end: it has what is the tenant's own."""
        for method, request in self._lists:
            answer = await method(request, metadata=bearer(self._tenant.admin_key), timeout=_SECONDS)
            self._overheard.note(self._tenant, type(request).__name__, answer.SerializeToString())
            assert self._tenant.canary.encode() in answer.SerializeToString(), type(request).__name__

    def _prompt(self) -> g.GenerateContentRequest:
        text = f"[[echo]] {self._tenant.canary} " * (1 + self._dice.randrange(12))
        number = self._dice.randrange(_SHARED_IDS * 8)
        fields: dict[str, Any] = {} if number >= _SHARED_IDS else {"request_id": str(UUID(int=number + 1, version=4))}
        return prompt(text, labels={"canary": self._tenant.canary}, **fields)

    def _caller(self) -> str:
        return self._tenant.poor_key if self._dice.random() < 0.1 else self._tenant.caller_key

    async def _ask(self) -> None:
        request = self._prompt()
        await self._hear(self._generation.GenerateContent(request, metadata=bearer(self._caller()), timeout=_SECONDS))

    async def _read(self) -> None:
        stream = self._generation.StreamGenerateContent(
            self._prompt(), metadata=bearer(self._caller()), timeout=_SECONDS
        )
        await self._hear(stream, chunks=self._dice.choice((1, 2, 3, 0)))

    async def _look(self) -> None:
        method, request = self._dice.choice(self._lists)
        await self._hear(method(request, metadata=bearer(self._tenant.admin_key), timeout=_SECONDS))

    async def _change(self) -> None:
        department = departments.Department(name=self._tenant.department, display_name=f"{self._dice.random()}")
        request = departments.UpdateDepartmentRequest(
            department=department, request_id=str(UUID(int=self._dice.randrange(_SHARED_IDS), version=4))
        )
        request.update_mask.paths.append("display_name")
        await self._hear(
            self._departments.UpdateDepartment(request, metadata=bearer(self._tenant.admin_key), timeout=_SECONDS)
        )

    async def _hear(self, call: Any, *, chunks: int = 0) -> None:
        """Hang up behind so many parts of a stream, or else at a random moment, and note all that came before."""
        is_patient = chunks or self._dice.random() < _PATIENT
        delay = _SECONDS if is_patient else self._dice.random() * _LONGEST_PATIENCE_SECONDS
        hanging_up = asyncio.get_running_loop().call_later(delay, call.cancel)
        try:
            async for message in _messages(call):
                self._overheard.note(self._tenant, "an answer", message.SerializeToString())
                chunks -= 1
                if not chunks:
                    call.cancel()
        except grpc.aio.AioRpcError as error:
            trailers = b"".join(one if isinstance(one, bytes) else one.encode() for _, one in error.trailing_metadata())
            self._overheard.note(self._tenant, "an error", (error.details() or "").encode(), trailers)
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
        finally:
            hanging_up.cancel()
        self._overheard.told[(await call.code()).name] += 1


async def _messages(call: Any) -> AsyncIterator[Message]:
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        yield await call
        return
    async for message in call:
        yield message


def _lists(channel: grpc.aio.Channel, tenant: CanaryTenant) -> list[tuple[Any, Message]]:
    """Return what a tenant's administrator lists; each answer has the tenant's name in it."""
    name, project = tenant.name, f"{tenant.department}/projects/{tenant.canary}"
    return [
        (tenants_grpc.TenantServiceStub(channel).GetTenant, tenants.GetTenantRequest(name=name)),
        (
            departments_grpc.DepartmentServiceStub(channel).ListDepartments,
            departments.ListDepartmentsRequest(parent=name),
        ),
        (
            projects_grpc.ProjectServiceStub(channel).ListProjects,
            projects.ListProjectsRequest(parent=tenant.department),
        ),
        (
            principals_grpc.PrincipalServiceStub(channel).ListPrincipals,
            principals.ListPrincipalsRequest(parent=name),
        ),
        (roles_grpc.RoleServiceStub(channel).ListRoleGrants, roles.ListRoleGrantsRequest(parent=name)),
        (keys_grpc.ApiKeyServiceStub(channel).ListApiKeys, keys.ListApiKeysRequest(parent=project)),
        (limits_grpc.LimitServiceStub(channel).ListLimits, limits.ListLimitsRequest(parent=name)),
        (
            reports_grpc.UsageReportServiceStub(channel).ListUsageRecords,
            reports.ListUsageRecordsRequest(parent=name, page_size=50),
        ),
    ]


@asynccontextmanager
async def visitors(
    stack: RunningStack, among: Sequence[CanaryTenant], overheard: Overheard, *, seed: int, each: int
) -> AsyncIterator[list[Visitor]]:
    """Open `each` connections for every tenant, so that every worker serves callers of all of them."""
    async with AsyncExitStack() as channels:
        opened = []
        for number in range(each * len(among)):
            channel = await channels.enter_async_context(grpc.aio.insecure_channel(stack.grpc, options=_OPTIONS))
            opened.append(Visitor(channel, among[number % len(among)], overheard, seed * 1000 + number))
        yield opened


async def hang_up(
    stack: RunningStack, among: Sequence[CanaryTenant], *, calls: int, seed: int, each: int = 4
) -> Overheard:
    """Have all tenants call at once until so many calls were cancelled; then read everything once."""
    overheard = Overheard([one.canary for one in among])

    async def keep_calling(visitor: Visitor) -> None:
        while overheard.told["CANCELLED"] < calls:
            await visitor.visit()

    async with visitors(stack, among, overheard, seed=seed, each=each) as opened:
        async with asyncio.TaskGroup() as group:
            for visitor in opened:
                group.create_task(keep_calling(visitor))
        for visitor in opened[: len(among)]:
            await visitor.look_everywhere()
    return overheard
