"""The demo company of `make run`: a tenant with three departments, projects, budgets, and a key to try it with."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.bootstrap import create_administrator_key, create_key, ensure_principal
from tollhouse_server.database.engine import Database
from tollhouse_server.embedded.files import write_secret_file
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.ledger.limit_store import create_limit
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.money import dollars_to_nanos
from tollhouse_server.names import DepartmentName, PrincipalName, ProjectName, TenantName
from tollhouse_server.routing import account_store
from tollhouse_server.routing.tables import AccountRow, UpstreamKeyRow
from tollhouse_server.tenancy import store as tenancy
from tollhouse_server.tenancy.tables import DepartmentRow, ProjectRow, TenantRow
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.key_ring import KEY_FIELD, upstream_key_path

DEMO_TENANT = "demo"
DEMO_DEPARTMENT = "research"
DEMO_PROJECT = "assistant"
DEMO_ACCOUNT = "main"
_CALLER = PrincipalName(DEMO_TENANT, "assistant-service")
_UPSTREAM_KEY = "first"
_DEPARTMENTS = {
    "research": ("Research", "assistant", "100"),
    "marketing": ("Marketing", "campaigns", "50"),
    "support": ("Support", "helpdesk", "25"),
}
"""Department: its name, its project, its monthly budget in dollars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoKeys:
    """The keys that `make run` prints."""

    demo_api_key: str
    admin_api_key: str


def demo_account() -> AccountRow:
    """Return the account that the demo's calls go through."""
    return AccountRow(
        account_id=DEMO_ACCOUNT,
        display_name="First Google Cloud project",
        kind="gemini_api",
        project="demo-project",
        base_url_key="gemini_api",
    )


async def ensure_demo(database: Database, pepper: bytes, keys_path: Path) -> DemoKeys:
    """Make the demo company and its keys unless they are there; the keys are kept at `keys_path` (mode 0600)."""
    kept = _read_keys(keys_path)
    if kept is not None:
        return kept
    async with database.transaction() as session:
        await _ensure_company(session)
        scope = str(ProjectName(DEMO_TENANT, DEMO_DEPARTMENT, DEMO_PROJECT))
        await ensure_principal(session, _CALLER, role="caller", scope=scope)
        demo_key = await create_key(session, pepper, _CALLER, environment="test", project=DEMO_PROJECT)
    keys = DemoKeys(demo_api_key=demo_key, admin_api_key=await create_administrator_key(database, pepper))
    write_secret_file(keys_path, json.dumps(asdict(keys)))
    return keys


def _read_keys(path: Path) -> DemoKeys | None:
    return DemoKeys(**json.loads(path.read_text())) if path.exists() else None


async def _ensure_company(session: AsyncSession) -> None:
    try:
        await tenancy.get_tenant(session, TenantName(DEMO_TENANT))
    except ResourceNotFound:
        await tenancy.create_tenant(session, TenantRow(tenant_id=DEMO_TENANT, display_name="Demo Company"))
        for department, (name, project, budget) in _DEPARTMENTS.items():
            await _add_department(session, department, name, project, budget)


async def _add_department(session: AsyncSession, department: str, name: str, project: str, budget: str) -> None:
    row = DepartmentRow(tenant_id=DEMO_TENANT, department_id=department, path=department, display_name=name)
    await tenancy.create_department(session, row)
    await tenancy.create_project(
        session, ProjectRow(tenant_id=DEMO_TENANT, project_id=project, department_id=department, display_name=project)
    )
    limit = LimitRow(
        tenant_id=DEMO_TENANT,
        name=f"{department}-monthly-budget",
        scope=str(DepartmentName(DEMO_TENANT, department)),
        metric="COST",
        window="MONTH",
        amount=dollars_to_nanos(budget),
    )
    await create_limit(session, limit)


async def ensure_upstream_key(database: Database, custodian: VaultClient, gemini_api_key: str | None) -> None:
    """Give the demo's account a key unless it has one: the real one, else one that the simulator takes."""
    async with database.transaction() as session:
        if await account_store.list_keys(session, DEMO_ACCOUNT):
            return
    secret = gemini_api_key or f"simulator-{secrets.token_hex(16)}"
    path = upstream_key_path(DEMO_ACCOUNT, _UPSTREAM_KEY)
    await custodian.delete_secret(path)
    version = await custodian.write_secret(path, {KEY_FIELD: secret}, cas=0)
    async with database.transaction() as session:
        row = UpstreamKeyRow(
            account_id=DEMO_ACCOUNT,
            key_id=_UPSTREAM_KEY,
            vault_version=version,
            fingerprint=account_store.fingerprint_of(secret),
        )
        await account_store.create_key(session, row)
