"""What all commands have alike: versions to hold a change to, and what a Tab offers."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tollhouse.admin.v1
import tollhouse_admin.commands
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from tollhouse.admin.v1 import (
    accounts_pb2,
    api_keys_pb2,
    departments_pb2,
    groups_pb2,
    identity_providers_pb2,
    roles_pb2,
    tenants_pb2,
    upstream_keys_pb2,
)
from tollhouse.v1 import catalog_pb2
from tollhouse_admin.__main__ import COMMANDS, load
from tollhouse_admin.scopes import complete_departments

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

# An order is given where there is none yet; what holds it to a version is set on the order itself.
BY_ANOTHER_WAY = {"OpenBreakerRequest", "CloseBreakerRequest"}


def messages_built() -> Iterator[tuple[str, ast.Call]]:
    """Yield every message that a command builds, by its name."""
    folder = Path(str(tollhouse_admin.commands.__file__)).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield node.func.attr, node


def test_every_change_can_be_held_to_a_version() -> None:
    """Where a request has an etag, its command has the option."""
    for module in pkgutil.iter_modules(tollhouse.admin.v1.__path__, "tollhouse.admin.v1."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)

    lacking = {
        name
        for name, call in messages_built()
        if name.endswith("Request") and has_etag(name) and "etag" not in {keyword.arg for keyword in call.keywords}
    }

    assert lacking == BY_ANOTHER_WAY


def has_etag(request: str) -> bool:
    """Tell whether a request of administration has a version of its own, beside that of a resource in it."""
    try:
        message = descriptor_pool.Default().FindMessageTypeByName(f"tollhouse.admin.v1.{request}")
    except KeyError:
        return False
    return "etag" in message.fields_by_name


@pytest.mark.parametrize("typed", [{"tenant": "acme"}, {}])
def test_a_tab_offers_what_is_in_the_tenant_that_the_command_would_use(
    server: CannedServer, monkeypatch: pytest.MonkeyPatch, typed: dict[str, str]
) -> None:
    """The one that was typed, or the default one."""
    monkeypatch.setenv("TOLLHOUSE_TENANT", "acme")
    names = [departments_pb2.Department(name=f"tenants/acme/departments/{one}") for one in ("sales", "labs")]
    server.answers["ListDepartments"] = departments_pb2.ListDepartmentsResponse(departments=names)

    offered = complete_departments(cast(Any, SimpleNamespace(params=typed)), "sa")

    assert offered == ["sales"]
    assert server.last.request.parent == "tenants/acme"


def test_a_tab_takes_the_only_tenant_as_the_command_does(server: CannedServer) -> None:
    """Where none was typed and none is the default."""
    names = [tenants_pb2.Tenant(name=name) for name in ("tenants/platform", "tenants/acme")]
    server.answers["ListTenants"] = tenants_pb2.ListTenantsResponse(tenants=names)
    server.answers["ListDepartments"] = departments_pb2.ListDepartmentsResponse(
        departments=[departments_pb2.Department(name="tenants/acme/departments/sales")]
    )

    offered = complete_departments(cast(Any, SimpleNamespace(params={})), "")

    assert (offered, server.last.request.parent) == (["sales"], "tenants/acme")


ACCOUNTS = accounts_pb2.ListAccountsResponse(accounts=[accounts_pb2.Account(name="accounts/offered")])
TIERS = catalog_pb2.ListTiersResponse(tiers=[catalog_pb2.Tier(name="tiers/offered")])
MODELS = catalog_pb2.ListModelsResponse(models=[catalog_pb2.Model(name="models/offered")])
KEYS = api_keys_pb2.ListApiKeysResponse(api_keys=[api_keys_pb2.ApiKey(name="tenants/acme/apiKeys/offered")])
ROLES = roles_pb2.ListRolesResponse(roles=[roles_pb2.Role(name="tenants/acme/roles/offered")])
GRANTS = roles_pb2.ListRoleGrantsResponse(role_grants=[roles_pb2.RoleGrant(name="tenants/acme/roleGrants/offered")])
UPSTREAM_KEYS = upstream_keys_pb2.ListUpstreamKeysResponse(
    upstream_keys=[upstream_keys_pb2.UpstreamKey(name="accounts/main/upstreamKeys/offered")]
)
MOVES = departments_pb2.ListDepartmentMovesResponse(
    department_moves=[departments_pb2.DepartmentMove(name="tenants/acme/departmentMoves/offered")]
)


@pytest.mark.parametrize(
    ("path", "parameter", "method", "answer"),
    [
        ("accounts show", "account", "ListAccounts", ACCOUNTS),
        ("breakers open", "account", "ListAccounts", ACCOUNTS),
        ("breakers open", "model", "ListModels", MODELS),
        ("breakers orders", "account", "ListAccounts", ACCOUNTS),
        ("targets list", "account", "ListAccounts", ACCOUNTS),
        ("targets list", "tier", "ListTiers", TIERS),
        ("upstream-keys rotate", "account", "ListAccounts", ACCOUNTS),
        ("upstream-keys rotate", "key", "ListUpstreamKeys", UPSTREAM_KEYS),
        ("limits create", "tier", "ListTiers", TIERS),
        ("limits create", "model", "ListModels", MODELS),
        ("charge-rules create", "tier", "ListTiers", TIERS),
        ("prices list", "model", "ListModels", MODELS),
        ("keys revoke", "key", "ListApiKeys", KEYS),
        ("roles grant", "role", "ListRoles", ROLES),
        ("roles delete", "role", "ListRoles", ROLES),
        ("roles revoke", "grant", "ListRoleGrants", GRANTS),
        ("departments cancel-move", "move", "ListDepartmentMoves", MOVES),
    ],
)
def test_a_tab_offers_what_there_is(
    server: CannedServer, path: str, parameter: str, method: str, answer: Message
) -> None:
    """As the list of the same noun shows it."""
    server.answers[method] = answer
    name, *rest = path.split()
    command = load(name)
    for each in rest:
        command = command.commands[each]
    context = command.make_context(path, [], resilient_parsing=True)
    context.params |= {"tenant": "acme", "account": "main"}

    (typed,) = (each for each in command.params if each.name == parameter)

    assert [each.value for each in typed.shell_complete(context, "of")] == ["offered"]


def test_roles_are_those_of_the_default_tenant_too(
    server: CannedServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with every other command; and a role's whole name says whose it is."""
    monkeypatch.setenv("TOLLHOUSE_TENANT", "acme")
    own = roles_pb2.Role(name="tenants/other/roles/teller", permissions=["usage.get"])
    server.answers["ListRoles"] = roles_pb2.ListRolesResponse(roles=[own])

    listed = run("roles", "list")
    parent = server.last.request.parent
    described = run("roles", "describe", own.name)

    assert (listed.code, parent) == (0, "tenants/acme")
    assert (described.code, server.last.request.parent) == (0, "tenants/other")


def test_members_that_go_are_shown_as_they_come(server: CannedServer, run: Run) -> None:
    """Who is out of the group, and how many are left."""
    left = groups_pb2.Group(name="tenants/acme/groups/staff", member_count=3)
    change = groups_pb2.GroupMembersChange(group=left, principals=["tenants/acme/principals/ann"])
    server.answers["RemoveGroupMembers"] = change

    result = run("groups", "remove", "staff", "ann", "-t", "acme", "--yes", "-o", "csv")

    assert result.err == "remove 1 members from tenants/acme/groups/staff: done\n"
    assert result.out.splitlines()[1] == "tenants/acme/groups/staff,3,tenants/acme/principals/ann"


def test_groups_of_a_provider_can_be_taken_away(server: CannedServer, run: Run) -> None:
    """All of them; to say nothing leaves them."""
    server.answers["UpdateIdentityProvider"] = identity_providers_pb2.IdentityProvider()

    where = ("identity-providers", "update", "entra", "-t", "acme")
    emptied = run(*where, "--no-groups")
    request = server.last.request
    both = run(*where, "--no-groups", "--group", "a=b")
    nothing = run(*where)

    assert (emptied.code, list(request.update_mask.paths)) == (0, ["group_mappings"])
    assert not request.identity_provider.group_mappings
    assert (both.code, nothing.code) == (2, 2)


@pytest.mark.parametrize("typed", ["x", "Sales", "1st", "ünï", "sales team", "a" * 64, "departments/Sales"])
def test_an_id_that_nothing_can_have_is_told_in_words(server: CannedServer, run: Run, typed: str) -> None:
    """Rather than by the pattern that the server holds it to."""
    result = run("departments", "create", typed, "-t", "acme")

    assert result.code == 2
    assert "cannot be an id. Write 2 to 63 lower-case letters, digits and hyphens, a letter first." in result.err
    assert not server.received


def test_what_is_neither_a_date_nor_a_span_is_told_both(server: CannedServer, run: Run) -> None:
    """A person who types a word learns how to write either."""
    result = run("keys", "create", "--principal", "ann", "-t", "acme", "--expires", "tomorrow")

    assert (result.code, "'tomorrow' is neither a date nor a span" in result.err) == (2, True)


NAMES = {"ID", "DEPARTMENT", "TIER", "MODEL", "SCOPE", "ACCOUNT", "PRINCIPAL", "GROUP"}
# What `update` clears with an empty text, and what the server names where nobody does.
MAY_BE_EMPTY = {"--google-project", "--id"}


def options_that_name(path: tuple[str, ...], entry: Any) -> Iterator[tuple[str, ...]]:
    """Yield every command with an option of it that names one thing, unless its help says what an empty text does."""
    for name, each in getattr(entry, "commands", {}).items():
        yield from options_that_name((*path, name), each)
    for option in entry.params:
        is_one = option.param_type_name == "option" and option.metavar in NAMES and not option.multiple
        if is_one and option.opts[0] not in MAY_BE_EMPTY and not {"''", "empty"} & set((option.help or "").split()):
            yield *path, option.opts[0]


def test_an_empty_name_does_not_mean_everything(server: CannedServer, run: Run) -> None:
    """It comes from an empty shell variable: a limit on one tier became one on all calls."""
    told = {command: run(*command, "") for name in COMMANDS for command in options_that_name((name,), load(name))}

    assert [command for command, result in told.items() if "it is empty" not in result.err] == []
    assert {result.code for result in told.values()} == {2}
    assert {
        ("limits", "create", "--tier"),
        ("departments", "move", "--to"),
        ("report", "month", "--department"),
    } <= told.keys()
    assert not server.received


def test_an_argument_that_is_no_text_is_refused(server: CannedServer, run: Run) -> None:
    """What a shell hands on in another encoding cannot be sent."""
    server.answers["CreateTenant"] = tenants_pb2.Tenant()

    result = run("tenants", "create", "acme", "--display-name", "Z\udcfcrich")

    assert (result.code, "not UTF-8 text" in result.err) == (2, True)
    assert not server.received
