"""The administration plane as one object: real PostgreSQL below, the handlers above, no transport."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self
from uuid import uuid4

from google.protobuf.message import Message
from tollhouse.admin.v1 import api_keys_pb2, departments_pb2, principals_pb2, projects_pb2, roles_pb2, tenants_pb2
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.call import Call
from tollhouse_server.api.methods import snake_case
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.permissions import permission_for, rules
from tollhouse_server.api.services.access_service import AccessService
from tollhouse_server.api.services.accounts_service import AccountService
from tollhouse_server.api.services.api_keys_service import ApiKeyService
from tollhouse_server.api.services.data_policies_service import DataPolicyService
from tollhouse_server.api.services.departments_service import DepartmentService
from tollhouse_server.api.services.devices_service import DeviceService
from tollhouse_server.api.services.groups_service import GroupService
from tollhouse_server.api.services.limit_alerts_service import LimitAlertService
from tollhouse_server.api.services.limit_increases_service import LimitIncreaseService
from tollhouse_server.api.services.limits_service import LimitService
from tollhouse_server.api.services.models_service import ModelService
from tollhouse_server.api.services.price_proposals_service import PriceProposalService
from tollhouse_server.api.services.prices_service import PriceService
from tollhouse_server.api.services.principals_service import PrincipalService
from tollhouse_server.api.services.projects_service import ProjectService
from tollhouse_server.api.services.roles_service import RoleService
from tollhouse_server.api.services.routing_policies_service import RoutingPolicyService
from tollhouse_server.api.services.tenants_service import TenantService
from tollhouse_server.api.services.trees_service import TreeService
from tollhouse_server.api.services.upstream_keys_service import UpstreamKeyService
from tollhouse_server.bootstrap import create_administrator_key
from tollhouse_server.custody.rotations import KeyVault
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.identity.directory import MAX_STALENESS_SECONDS, Directory
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import domain_of
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.live import seed
from tollhouse_server.services import tree_services

from tests.drivers.postgres import TestDatabase

PEPPER = b"a pepper for tests"
PATIENCE_SECONDS = 5.0
ADDRESSES = Addresses(
    base_urls={
        "gemini_api": "http://127.0.0.1:1",
        "gemini_api-simulator": "http://127.0.0.1:2",
        "vertex": "https://{region}-aiplatform.googleapis.com",
        "openai_compatible-gemma": "http://127.0.0.1:3",
    },
    egress_urls={"hong-kong": "http://me:word@127.0.0.1:4"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Everything that a test of the administration plane touches."""

    database: Database
    watch: EpochWatch
    directory: Directory
    authorizer: Authorizer
    handlers: dict[str, Any]
    admin_key: str

    @classmethod
    async def start(cls, dsn: str, *, admin_key: str = "") -> Self:
        """Open the plane over a database; without the key of a platform's administrator it makes one."""
        database = Database(dsn, pool_size=10)
        watch = EpochWatch(database)
        directory, authorizer = Directory(database, watch, PEPPER), Authorizer(database, watch)
        mutations, pages = Mutations(database, b"fingerprints"), PageTokens(b"pages")
        services = (
            TenantService(database, mutations, pages),
            DepartmentService(database, mutations, pages, authorizer),
            ProjectService(database, mutations, pages),
            PrincipalService(database, mutations, pages, authorizer),
            ApiKeyService(database, mutations, pages, authorizer, PEPPER),
            RoleService(database, mutations, pages, authorizer),
            GroupService(database, mutations, pages, authorizer),
            AccessService(database, pages, authorizer),
            DeviceService(database, mutations, pages),
            TreeService(database, mutations, authorizer, partial(tree_services, database, pages, authorizer)),
            LimitService(database, mutations, pages),
            LimitIncreaseService(database, mutations, pages),
            LimitAlertService(database, pages),
            PriceService(database, mutations, pages),
            PriceProposalService(database, mutations, pages),
            RoutingPolicyService(database, mutations, authorizer),
            DataPolicyService(database, mutations, pages, PEPPER),
            ModelService(database, mutations, pages),
            AccountService(database, mutations, pages, ADDRESSES),
        )
        admin_key = admin_key or await create_administrator_key(database, PEPPER)
        await watch.refresh()
        return cls(
            database=database,
            watch=watch,
            directory=directory,
            authorizer=authorizer,
            handlers={type(service).__name__: service for service in services},
            admin_key=admin_key,
        )

    def hold_keys(self, custodian: KeyVault) -> None:
        """Serve upstream keys with this Vault."""
        service = UpstreamKeyService(self.database, Mutations(self.database, b"f"), PageTokens(b"p"), custodian)
        self.handlers["UpstreamKeyService"] = service

    async def call(self, message: Message, *, key: str | None = None) -> Any:
        """Serve `message` as the chain does: authenticate, authorise, handle."""
        if self.watch.staleness_seconds > MAX_STALENESS_SECONDS - 0.5:
            # Nobody runs the watch here: tests say when it looks.
            await self.watch.refresh()
        principal = await self.directory.authenticate(
            f"Bearer {key or self.admin_key}", patience_seconds=PATIENCE_SECONDS
        )
        rpc = rpc_of(message)
        rule = permission_for(rpc)
        scope = principal.home if rule.permission is None else rule.scope(message, principal)
        if rule.permission is not None:
            await self.authorizer.authorize(principal, rule.permission, scope)
        _, service, method = rpc.rsplit(".", 2)
        handler = getattr(self.handlers[service], snake_case(method))
        return await handler(message, replace(call_of(principal, rpc), domain=domain_of(scope)))

    async def tenant(self, tenant: str) -> None:
        """Make a tenant with department `sales`, sub-department `emea`, and project `crm` in it."""
        await self.call(tenants_pb2.CreateTenantRequest(tenant_id=tenant))
        sales = f"tenants/{tenant}/departments/sales"
        await self.call(departments_pb2.CreateDepartmentRequest(parent=f"tenants/{tenant}", department_id="sales"))
        await self.call(
            departments_pb2.CreateDepartmentRequest(
                parent=f"tenants/{tenant}",
                department_id="emea",
                department=departments_pb2.Department(parent_department=sales),
            )
        )
        await self.call(
            projects_pb2.CreateProjectRequest(parent=f"tenants/{tenant}/departments/emea", project_id="crm")
        )

    async def key(self, tenant: str, principal: str, *grants: tuple[str, str], project: str = "") -> str:
        """Make a principal with (role, scope) grants, and return a key of his."""
        name = f"tenants/{tenant}/principals/{principal}"
        kind = principals_pb2.Principal.KIND_SERVICE_ACCOUNT
        await self.call(
            principals_pb2.CreatePrincipalRequest(
                parent=f"tenants/{tenant}",
                principal_id=principal,
                principal=principals_pb2.Principal(kind=kind),
            )
        )
        for role, scope in grants:
            grant = roles_pb2.RoleGrant(principal=name, role=role if "/" in role else f"roles/{role}", scope=scope)
            await self.call(roles_pb2.CreateRoleGrantRequest(parent=f"tenants/{tenant}", role_grant=grant))
        answer = await self.call(
            api_keys_pb2.CreateApiKeyRequest(
                parent=project or f"tenants/{tenant}", api_key=api_keys_pb2.ApiKey(principal=name)
            )
        )
        return str(answer.secret)


async def with_administrator(database: TestDatabase) -> str:
    """Prepare a database for planes: return the key of a platform's administrator."""
    async with plane_over(database) as plane:
        return plane.admin_key


async def with_catalogue(database: TestDatabase) -> str:
    """Prepare a database for planes, with the packaged catalogue."""
    async with plane_over(database) as plane:
        await add_catalogue(plane)
        return plane.admin_key


async def add_catalogue(plane: Plane) -> None:
    """Store the packaged catalogue."""
    async with plane.database.transaction() as session:
        await seed(session, accounts=(), addresses=Addresses(base_urls={}))


@asynccontextmanager
async def plane_over(database: TestDatabase) -> AsyncIterator[Plane]:
    """Open a plane over a database until the block is left, with the key that is kept with it, if one is."""
    plane = await Plane.start(database.app_dsn, admin_key=database.kept or "")
    try:
        yield plane
    finally:
        await plane.database.close()


def rpc_of(message: Message) -> str:
    """Return the full name of the administrative RPC that takes this request."""
    method = message.DESCRIPTOR.name.removesuffix("Request")
    return next(rpc for rpc in rules() if rpc.startswith("tollhouse.admin.") and rpc.endswith(f".{method}"))


def call_of(principal: Principal, rpc: str) -> Call:
    """Return a call with ten seconds left, in the tenant of whoever makes it."""
    return Call(
        rpc=rpc,
        principal=principal,
        domain=principal.tenant_id,
        deadline=time.monotonic() + 10,
        correlation_id=uuid4().hex,
    )
