"""A tenant made by one file, through the program and a running server, and taken away again."""

from pathlib import Path
from uuid import uuid4

import yaml

from tests.drivers.command_line import ROOT, CommandLine

ONBOARDING = ROOT / "docs" / "onboarding.yaml"


def onboarding(directory: Path) -> tuple[str, str]:
    """Write the file of the README for a tenant of this test; return the tenant and the file."""
    tenant = f"northwind-{uuid4().hex[:8]}"
    file = directory / "onboarding.yaml"
    file.write_text(ONBOARDING.read_text().replace("id: northwind\n", f"id: {tenant}\n"))
    return tenant, str(file)


def test_a_tenant_is_onboarded_by_one_file_and_can_call_at_once(tollhouse: CommandLine, tmp_path: Path) -> None:
    """Three departments, two services, somebody from finance, budgets; a second time nothing is left to do."""
    tenant, file = onboarding(tmp_path)

    planned = tollhouse.json("apply", "-f", file, "--dry-run")
    made = tollhouse.json("apply", "-f", file)
    again = tollhouse.json("apply", "-f", file)

    assert [one["action"] for one in made["changes"]] == ["ACTION_CREATED"] * 20
    assert len(planned["changes"]) == 20
    assert (again["changes"], again["unchangedCount"]) == ([], 20)
    where = ("-t", tenant, "-d", "support", "-p", "helpdesk")
    tollhouse.ok("keys", "create", *where, "--principal", "helpdesk-service", "--key-out", str(tmp_path / "key"))
    assert tollhouse.ok("generate", "Hello?", key=(tmp_path / "key").read_text().strip())
    limits = tollhouse.json("limits", "list", "-t", tenant)
    assert {one["name"].rsplit("/", 1)[1] for one in limits} == {"all-monthly", "support-monthly", "search-per-minute"}


def test_what_was_exported_and_edited_is_applied_as_a_difference(tollhouse: CommandLine, tmp_path: Path) -> None:
    """Nothing but the edit changes; pruning asks, and deletes what was taken out."""
    tenant, file = onboarding(tmp_path)
    tollhouse.ok("apply", "-f", file)
    exported = tmp_path / "export.yaml"
    tollhouse.ok("export", "-t", tenant, "-f", str(exported))

    untouched = tollhouse.json("apply", "-f", str(exported), "--prune")
    document = yaml.safe_load(exported.read_text())
    document["departments"][0]["display_name"] = "Operations: EMEA"
    document["limits"] = [one for one in document["limits"] if one["id"] != "search-per-minute"]
    exported.write_text(yaml.safe_dump(document))
    refused = tollhouse("apply", "-f", str(exported), "--prune")
    edited = tollhouse.json("apply", "-f", str(exported), "--prune", "--yes")

    assert untouched["changes"] == []
    assert (refused.returncode, "search-per-minute" in refused.stderr) == (2, True)
    assert [(one["action"], one["resource"].rsplit("/", 1)[1]) for one in edited["changes"]] == [
        ("ACTION_CHANGED", "operations"),
        ("ACTION_DELETED", "search-per-minute"),
    ]


def test_an_erps_list_moves_and_merges_nothing_that_it_does_not_name(tollhouse: CommandLine, tmp_path: Path) -> None:
    """A CSV of the tree goes out and comes back; a tenant that was deleted by mistake does too."""
    tenant, file = onboarding(tmp_path)
    tollhouse.ok("apply", "-f", file)
    listed = tmp_path / "tree.csv"
    tollhouse.ok("export", "-t", tenant, "-f", str(listed))

    back = tollhouse.json("apply", "-f", str(listed), "-t", tenant, "--prune")
    tollhouse.ok("departments", "merge", "shop", "--into", "support", "-t", tenant, "--yes")
    tollhouse.ok("tenants", "delete", tenant, "--retention-days", "7", "--yes")
    tollhouse.ok("tenants", "undelete", tenant)

    assert (back["changes"], back["unchangedCount"]) == ([], 5)
    merged = tollhouse.json("departments", "show", "shop", "-t", tenant)
    assert merged["mergedInto"] == f"tenants/{tenant}/departments/support"
    moved = tollhouse.json("projects", "list", "-t", tenant, "-d", "support")
    assert [one["name"].rsplit("/", 1)[1] for one in moved] == ["helpdesk", "search"]
