"""Changes carry the key and a request id, can be previewed, and ask before they destroy."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from google.protobuf.empty_pb2 import Empty
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import departments_pb2, limits_pb2, roles_pb2, tenants_pb2, upstream_keys_pb2

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import KEY, Run


def test_a_change_carries_the_key_and_a_new_request_id(server: CannedServer, run: Run) -> None:
    """The key is in the metadata, the id is a UUID4 of this call alone."""
    server.answers["CreateTenant"] = tenants_pb2.Tenant(name="tenants/acme")

    run("tenants", "create", "acme", "--display-name", "Acme", "--time-zone", "Europe/Berlin")
    first = server.last
    run("tenants", "create", "acme")

    assert first.metadata["authorization"] == f"Bearer {KEY}"
    assert first.request.tenant_id == "acme"
    assert (first.request.tenant.display_name, first.request.tenant.time_zone) == ("Acme", "Europe/Berlin")
    assert UUID(first.request.request_id).version == 4
    assert first.request.request_id != server.last.request.request_id
    assert not first.request.validate_only


def test_dry_run_asks_the_server_and_shows_what_differs(server: CannedServer, run: Run) -> None:
    """The preview is the server's own answer to validate_only; unchanged fields and the etag are left out."""
    server.answers["GetTenant"] = tenants_pb2.Tenant(name="tenants/acme", display_name="Old", etag="1")
    server.answers["UpdateTenant"] = tenants_pb2.Tenant(name="tenants/acme", display_name="New", etag="2")

    result = run("tenants", "update", "acme", "--display-name", "New", "--dry-run", "-o", "csv")

    assert server.last.request.validate_only
    assert list(server.last.request.update_mask.paths) == ["display_name"]
    assert result.out == "field,before,after\ndisplay_name,Old,New\n"
    assert "nothing was changed" in result.err


def test_dry_run_of_a_deletion_shows_what_would_be_gone(server: CannedServer, run: Run) -> None:
    """Without a confirmation, as nothing happens."""
    server.answers["GetLimit"] = limits_pb2.Limit(name="tenants/acme/limits/monthly", scope="tenants/acme")
    server.answers["DeleteLimit"] = Empty()

    result = run("limits", "delete", "monthly", "--tenant", "acme", "--dry-run", "-o", "json")

    document = json.loads(result.out)
    assert server.last.request.validate_only
    assert document["dryRun"] is True
    assert document["before"]["name"] == "tenants/acme/limits/monthly"
    assert document["after"] is None


def test_destroying_without_a_terminal_needs_yes(server: CannedServer, run: Run) -> None:
    """A script that was not told to go on does not."""
    server.answers["DeleteTenant"] = tenants_pb2.Tenant(name="tenants/acme")

    refused = run("tenants", "delete", "acme")
    calls_before = len(server.received)
    confirmed = run("tenants", "delete", "acme", "--yes")

    assert refused.code == 2
    assert "Add --yes" in refused.err
    assert calls_before == 0
    assert confirmed.code == 0
    assert server.last.method == "DeleteTenant"


@pytest.mark.parametrize(
    ("typed", "scope"),
    [
        (["--scope", "departments/research"], "tenants/acme/departments/research"),
        (["--department", "research"], "tenants/acme/departments/research"),
        (["--department", "research", "--project", "chat"], "tenants/acme/departments/research/projects/chat"),
        (["--scope", "tenants/acme/departments/r/projects/chat"], "tenants/acme/departments/r/projects/chat"),
        (["--scope", "tenant"], "tenants/acme"),
        ([], "tenants/acme"),
    ],
)
def test_a_budget_is_created_from_what_people_type(
    server: CannedServer, run: Run, typed: list[str], scope: str
) -> None:
    """Scopes by option or name; money exact in units and nanos."""
    server.answers["CreateLimit"] = limits_pb2.Limit(name="tenants/acme/limits/m")

    result = run(
        *("limits", "create", "m", "--tenant", "acme", "--metric", "cost", "--window", "month", "--amount", "$100.10"),
        *typed,
    )

    request = server.last.request
    assert result.code == 0
    assert (request.parent, request.limit_id, request.limit.scope) == ("tenants/acme", "m", scope)
    assert request.limit.metric == limits_pb2.LIMIT_METRIC_COST
    assert request.limit.window == limits_pb2.LIMIT_WINDOW_MONTH
    assert request.limit.amount.money == Money(currency_code="USD", units=100, nanos=100_000_000)


def test_updating_a_quota_reads_its_metric_to_know_the_unit(server: CannedServer, run: Run) -> None:
    """5k is five thousand tokens on a token limit, and no dollars."""
    stored = limits_pb2.Limit(name="tenants/acme/limits/t", metric=limits_pb2.LIMIT_METRIC_INPUT_TOKENS)
    server.answers |= {"GetLimit": stored, "UpdateLimit": stored}

    run("limits", "update", "t", "--tenant", "acme", "--amount", "5k")

    assert server.last.request.limit.amount.units == 5000
    assert list(server.last.request.update_mask.paths) == ["amount"]


def test_the_only_tenant_need_not_be_named(server: CannedServer, run: Run) -> None:
    """With one company on the server its name is clear; the platform's own tenant does not count."""
    server.answers["ListTenants"] = tenants_pb2.ListTenantsResponse(
        tenants=[tenants_pb2.Tenant(name="tenants/acme"), tenants_pb2.Tenant(name="tenants/platform")]
    )
    server.answers["CreateDepartment"] = departments_pb2.Department(name="tenants/acme/departments/research")

    result = run("departments", "create", "research", "--under", "rnd")

    assert "using the only tenant, acme" in result.err
    assert server.last.request.parent == "tenants/acme"
    assert server.last.request.department.parent_department == "tenants/acme/departments/rnd"


def test_among_several_tenants_one_must_be_named(server: CannedServer, run: Run) -> None:
    """Nothing is guessed."""
    server.answers["ListTenants"] = tenants_pb2.ListTenantsResponse(
        tenants=[tenants_pb2.Tenant(name="tenants/acme"), tenants_pb2.Tenant(name="tenants/bolt")]
    )

    result = run("departments", "create", "research")

    assert result.code == 2
    assert "--tenant" in result.err


def test_a_role_is_granted_on_the_scope_that_was_typed(server: CannedServer, run: Run) -> None:
    """Principal, role and scope by their ids."""
    server.answers["ListRoles"] = roles_pb2.ListRolesResponse(roles=[roles_pb2.Role(name="roles/department-admin")])
    server.answers["CreateRoleGrant"] = roles_pb2.RoleGrant(name="tenants/acme/roleGrants/g")

    run("roles", "grant", "kim", "department-admin", "-t", "acme", "-d", "research")

    grant = server.last.request.role_grant
    assert server.last.request.parent == "tenants/acme"
    assert grant.principal == "tenants/acme/principals/kim"
    assert grant.role == "roles/department-admin"
    assert grant.scope == "tenants/acme/departments/research"


def test_an_upstream_key_comes_from_stdin_and_is_never_shown(server: CannedServer, run: Run) -> None:
    """Not in the arguments, not in the output."""
    name = "accounts/main/upstreamKeys/one"
    server.answers["AddUpstreamKey"] = upstream_keys_pb2.UpstreamKey(name=name)

    result = run("upstream-keys", "add", "one", "--account", "main", stdin="AIzaTheSecret\n")

    assert server.last.request.secret == "AIzaTheSecret"
    assert server.last.request.parent == "accounts/main"
    assert "AIzaTheSecret" not in result.out + result.err


def test_an_upstream_key_comes_from_a_file(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """White space around it does not count."""
    server.answers["AddUpstreamKey"] = upstream_keys_pb2.UpstreamKey(name="accounts/main/upstreamKeys/one")
    (tmp_path / "key").write_text(" AIzaTheSecret \n")

    run("upstream-keys", "add", "one", "--account", "main", "--key-file", str(tmp_path / "key"))

    assert server.last.request.secret == "AIzaTheSecret"
