"""Trees as files: read strictly, shown as what changes, asked about before anything is deleted, and back to files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.type.money_pb2 import Money
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tollhouse.admin.v1 import limits_pb2, principals_pb2
from tollhouse.admin.v1 import trees_pb2 as pb
from tollhouse_admin.failures import Failure
from tollhouse_admin.tree_csv import read_csv, write_csv
from tollhouse_admin.tree_yaml import SECTIONS, read_yaml, write_yaml

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

ACME = "tenants/acme"
ALL = list(SECTIONS.values())
# What the server admits in a name: everything that protobuf and PostgreSQL can hold, but NUL.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
IDS = st.from_regex(r"[a-z][a-z0-9-]{1,12}", fullmatch=True)

FILE = """
tenant:
  id: acme
  display_name: Acme
departments:
  - id: sales
    cost_centre: 4711
    owner: ann
projects:
  - {id: crm, department: sales}
role_grants:
  - {principal: ann, role: caller, scope: departments/sales}
  - {group: staff, role: own/teller, scope: tenant}
limits:
  - {id: daily, scope: tenant, metric: cost, window: day, amount: $0.10, thresholds: [80]}
"""


def changed(
    *names: str, action: "pb.TreeChange.Action.ValueType" = pb.TreeChange.ACTION_CREATED
) -> pb.ApplyTreeResponse:
    """Build an answer."""
    fields = [pb.TreeFieldChange(field="display_name", before="Old", after="New")]
    changes = [pb.TreeChange(action=action, resource=f"{ACME}/{name}", fields=fields) for name in names]
    return pb.ApplyTreeResponse(changes=changes, unchanged_count=3)


def write(home: Path, text: str, name: str = "tree.yaml") -> str:
    """Write a file and return its name."""
    (home / name).write_text(text, encoding="utf-8")
    return name


def test_a_file_is_sent_as_what_it_says(server: CannedServer, run: Run, home: Path) -> None:
    """Short names become whole ones, numbers may be texts, and what is not said is not sent."""
    server.answers["ApplyTree"] = changed("departments/sales")

    result = run("apply", "-f", write(home, FILE))

    request = server.last.request
    assert (result.code, request.parent, request.prune, request.validate_only) == (0, ACME, False, False)
    (sales,) = request.tree.departments
    assert (sales.id, sales.cost_centre, sales.owner, sales.HasField("parent")) == ("sales", "4711", "ann", False)
    grants = [(one.principal, one.group, one.role, one.scope) for one in request.tree.role_grants]
    assert grants == [
        ("ann", "", "roles/caller", f"{ACME}/departments/sales"),
        ("", "staff", f"{ACME}/roles/teller", ACME),
    ]
    (limit,) = request.tree.limits
    assert (limit.amount.money.nanos, limit.metric) == (100_000_000, limits_pb2.LIMIT_METRIC_COST)
    assert "+ tenants/acme/departments/sales" in result.out
    assert "3 are as they were" in result.err


def test_a_dry_run_changes_nothing_and_says_so(server: CannedServer, run: Run, home: Path) -> None:
    """The server's own answer, as JSON too."""
    server.answers["ApplyTree"] = changed("departments/sales", action=pb.TreeChange.ACTION_CHANGED)
    name = write(home, FILE)

    as_text = run("apply", "-f", name, "--dry-run")
    as_json = run("apply", "-f", name, "--dry-run", "-o", "json")

    assert all(call.request.validate_only for call in server.received)
    assert "    display_name: Old -> New" in as_text.out
    document = json.loads(as_json.out)
    assert (document["dryRun"], document["changes"][0]["action"]) == (True, "ACTION_CHANGED")


def test_what_would_be_deleted_is_asked_about_first(server: CannedServer, run: Run, home: Path) -> None:
    """Without anybody to ask nothing is done; the sections of the file are the ones that are pruned."""
    server.answers["ApplyTree"] = changed("departments/old", action=pb.TreeChange.ACTION_DELETED)
    name = write(home, FILE)

    refused = run("apply", "-f", name, "--prune")
    asked = [call.request.validate_only for call in server.received]
    agreed = run("apply", "-f", name, "--prune", "--yes")

    assert (refused.code, asked) == (2, [True])
    assert "to be deleted: tenants/acme/departments/old" in refused.err
    assert agreed.code == 0
    assert not server.last.request.validate_only
    assert list(server.last.request.prune_sections) == [
        pb.TREE_SECTION_DEPARTMENTS,
        pb.TREE_SECTION_PROJECTS,
        pb.TREE_SECTION_ROLE_GRANTS,
        pb.TREE_SECTION_LIMITS,
    ]


def test_pruning_that_deletes_nothing_asks_nothing(server: CannedServer, run: Run, home: Path) -> None:
    """A nightly job needs nobody at a terminal until there is something to decide."""
    server.answers["ApplyTree"] = changed("departments/new")

    assert run("apply", "-f", write(home, FILE), "--prune").code == 0
    assert [call.request.validate_only for call in server.received] == [True, False]


FAULTS = [
    ("tenant: {id: acme}\nteams: []\n", "line 2: 'teams' is not known"),
    ("tenant: {id: acme}\ntenant: {id: acme}\n", "line 2: 'tenant' is there twice"),
    ("tenant: {id: acme}\ndepartments:\n  - id: a1\n    colour: red\n", "line 4: 'colour' is not known"),
    ("tenant: {id: acme}\ndepartments:\n  - id: a1\n    id: a2\n", "line 4: 'id' is there twice"),
    ("tenant: {id: acme}\ndepartments: {id: a1}\n", "line 2: a list belongs here"),
    ("tenant: {id: acme}\ndepartments:\n  - a1\n", "line 3: a mapping belongs here"),
    ("tenant: {id: acme}\ndepartments:\n  - id: a1\n    display_name: no\n", "line 4: a text belongs here"),
    ("tenant: {id: acme}\ndepartments:\n  - id: a1\n    display_name: 2026-01-01\n", "line 4: a text belongs here"),
    ("tenant:\n  id: acme\n  fiscal_month_start_day: first\n", "line 3: a whole number belongs here"),
    ("tenant:\n  id: acme\n  fiscal_month_start_day: 99999999999\n", "line 3: a whole number belongs here"),
    ('tenant: {id: acme}\ndepartments:\n  - {id: a1, owner: "\\uD83D"}\n', "line 3: half a character"),
    ("tenant: {id: acme}\nlimits:\n  - {id: a1, thresholds: [1e400]}\n", "line 3: a whole number belongs here"),
    ("tenant: {id: acme}\nprincipals:\n  - {id: a1, kind: robot}\n", "line 3: 'robot' is not one of user"),
    ("tenant: {id: acme}\nlimits:\n  - {id: a1, amount: 5}\n", "line 3: the metric is needed"),
    ("tenant: {id: acme}\nlimits:\n  - {id: a1, metric: cost, amount: lots}\n", "line 3: 'lots' is not an amount"),
    ("tenant: {id: acme}\nrole_grants:\n  - {scope: moon}\n", "line 3: 'moon' is not a scope"),
    ("tenant: {id: acme}\ndepartments:\n  - &a {id: a1}\n  - *a\n", "aliases are not read"),
    ("tenant: {id: acme\n", "line 2: is not YAML"),
    ("departments: []\n", "does not say whose it is"),
    ("", "is empty"),
]


@pytest.mark.parametrize(("text", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_a_fault_in_a_file_is_told_with_its_line(
    server: CannedServer, run: Run, home: Path, text: str, said: str
) -> None:
    """And nothing is sent."""
    result = run("apply", "-f", write(home, text))

    assert result.code == 2
    assert said in result.err
    assert not server.received


def test_a_file_that_cannot_be_read_says_why(server: CannedServer, run: Run, home: Path) -> None:
    """Missing, a folder, or not text; from stdin too."""
    (home / "folder.yaml").mkdir()
    (home / "latin.csv").write_bytes(b"type,id,display_name\ndepartment,rd,Z\xfcrich\n")

    said = [run("apply", "-f", name, "-t", "acme").err for name in ("none.yaml", "folder.yaml", "latin.csv")]
    piped = run("apply", "-f", "-", "--format", "csv", "-t", "acme", stdin="type,id\ndepartment,z\udcfc\n")

    assert "none.yaml cannot be read: No such file or directory" in said[0]
    assert "folder.yaml cannot be read: Is a directory" in said[1]
    assert "latin.csv is not UTF-8 text" in said[2]
    assert (piped.code, "- is not UTF-8 text" in piped.err) == (2, True)
    assert not server.received


CSV_FAULTS = [
    ("type,id,colour\n", "line 1: column 'colour' is not known"),
    ("id,parent\n", "line 1: the column 'type' is missing"),
    ("type,id,id\n", "line 1: a column is there twice"),
    ("type,id\ndepartment,a1\nteam,a2\n", "line 3: 'team' is neither"),
    ('type,id\ndepartment,"a\n1"\ndepartment\n', "line 4: has 1 fields, and the header 2"),
    ('type,id\ndepartment,"a1"x\n', "line 2: is not CSV"),
]


@pytest.mark.parametrize(("text", "said"), CSV_FAULTS, ids=[said for _, said in CSV_FAULTS])
def test_a_fault_in_a_csv_is_told_with_its_line(text: str, said: str) -> None:
    """Also after a field of several lines."""
    with pytest.raises(Failure, match=said):
        read_csv("tree.csv", text, tenant=ACME)


def test_a_csv_of_an_erp_changes_departments_and_projects_alone(server: CannedServer, run: Run, home: Path) -> None:
    """A column that is not there leaves its field as it is; people and limits are never pruned."""
    server.answers["ApplyTree"] = changed()
    text = "\ufefftype,id,parent,cost_centre\r\ndepartment,sales,,4711\r\nproject,crm,sales,\r\n"

    result = run("apply", "-f", write(home, text, "tree.csv"), "--tenant", "acme", "--prune")

    request = server.last.request
    assert result.code == 0
    (sales,), (crm,) = request.tree.departments, request.tree.projects
    assert (sales.parent, sales.cost_centre, sales.HasField("owner")) == ("", "4711", False)
    assert (crm.department, crm.HasField("cost_centre"), crm.cost_centre) == ("sales", True, "")
    assert list(request.prune_sections) == [pb.TREE_SECTION_DEPARTMENTS, pb.TREE_SECTION_PROJECTS]


def test_what_is_exported_is_what_apply_takes(server: CannedServer, run: Run, home: Path) -> None:
    """Through a file, with everything that a tree can have."""
    tree = read_yaml("tree.yaml", FILE, tenant=None).tree
    server.answers["ExportTree"] = pb.ExportTreeResponse(tree=tree, sections=ALL)
    server.answers["ApplyTree"] = changed()

    exported = run("export", "--tenant", "acme", "-f", "out.yaml")
    run("apply", "-f", "out.yaml")

    assert exported.code == 0
    assert "written to out.yaml" in exported.err
    assert server.last.request.tree == tree


def test_an_export_can_be_of_a_department_and_of_some_sections(server: CannedServer, run: Run) -> None:
    """As the options say."""
    server.answers["ExportTree"] = pb.ExportTreeResponse()

    run("export", "-t", "acme", "-d", "sales", "--section", "role-grants", "--section", "limits")

    request = server.last.request
    assert request.scope == f"{ACME}/departments/sales"
    assert list(request.sections) == [pb.TREE_SECTION_ROLE_GRANTS, pb.TREE_SECTION_LIMITS]


def departments(names: Sequence[str]) -> list[pb.TreeDepartment]:
    """Return a department of each name, with what a server answers."""
    return [
        pb.TreeDepartment(id=f"d{index}", parent="", display_name=name, cost_centre="", owner="")
        for index, name in enumerate(names)
    ]


def normal(tree: pb.Tree) -> pb.Tree:
    """Return a tree without the empty texts that a server answers and a file need not have."""
    copy = pb.Tree()
    copy.CopyFrom(tree)
    for section in ("departments", "projects", "principals", "groups", "roles"):
        for entry in getattr(copy, section):
            for field, value in entry.ListFields():
                if value == "":
                    entry.ClearField(field.name)
    return copy


ODD = [
    "no",
    "~",
    "",
    " a ",
    "1e3",
    "0x1",
    "2026-01-01",
    "- x",
    "a: b",
    "#",
    "\u2028",
    "\x85",
    "\ufeff",
    "\r\n",
    "🦆",
    "é",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_odd_names_survive_yaml_and_csv(name: str) -> None:
    """Those that YAML would like to take for something else."""
    tree = pb.Tree(departments=departments([name]))

    by_yaml = read_yaml("t", write_yaml(ACME, tree, ALL), tenant=None).tree
    by_csv = read_csv("t", write_csv(tree), tenant=ACME).tree

    assert normal(by_yaml).departments == normal(tree).departments
    assert by_csv.departments == tree.departments


@given(st.lists(TEXTS, max_size=4))
def test_any_name_survives_csv(names: list[str]) -> None:
    """Quotes, commas, line ends and all."""
    tree = pb.Tree(departments=departments(names))

    assert read_csv("t", write_csv(tree), tenant=ACME).tree == tree


@st.composite
def trees(draw: Any) -> pb.Tree:
    """Build any tree that a server may answer."""
    amount = draw(st.integers(0, 2**62))
    money = limits_pb2.LimitAmount(money=Money(currency_code="USD", units=amount % 10**9, nanos=amount % 10**9))
    return pb.Tree(
        tenant=pb.TreeTenant(
            display_name=draw(TEXTS), time_zone="UTC", fiscal_month_start_day=draw(st.integers(1, 28))
        ),
        principals=[pb.TreePrincipal(id=draw(IDS), kind=principals_pb2.Principal.KIND_USER, display_name=draw(TEXTS))],
        groups=[pb.TreeGroup(id=draw(IDS), display_name=draw(TEXTS), members=pb.TreeIds(ids=draw(st.lists(IDS))))],
        roles=[pb.TreeRole(id=draw(IDS), description=draw(TEXTS), permissions=pb.TreeIds(ids=["usage.get"]))],
        departments=departments(draw(st.lists(TEXTS, max_size=3))),
        projects=[pb.TreeProject(id=draw(IDS), department=draw(IDS), display_name=draw(TEXTS), cost_centre="1 e3")],
        limits=[
            pb.TreeLimit(
                id=draw(IDS),
                scope=ACME,
                metric=limits_pb2.LIMIT_METRIC_COST,
                window=limits_pb2.LIMIT_WINDOW_DAY,
                mode=limits_pb2.LIMIT_MODE_ELASTIC,
                amount=money,
                overshoot=money,
                thresholds=pb.TreeThresholds(percents=[1, 1000]),
            )
        ],
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(trees())
def test_any_tree_survives_yaml(tree: pb.Tree) -> None:
    """What is exported says the same when it is read again."""
    read = read_yaml("t", write_yaml(ACME, tree, ALL), tenant=None)

    again = read.tree
    assert (read.tenant, read.sections) == (ACME, ALL)
    tree.tenant.display_name = tree.tenant.display_name or ""
    if not tree.tenant.display_name:
        tree.tenant.ClearField("display_name")
    assert normal(again) == normal(tree)
