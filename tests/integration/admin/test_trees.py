"""A tenant as one document: created, compared, changed, pruned; nobody can by a document what he cannot by himself."""

from typing import Any
from uuid import uuid4

import pytest
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import departments_pb2, limits_pb2, principals_pb2, roles_pb2, tenants_pb2
from tollhouse.admin.v1 import trees_pb2 as pb
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
    TollhouseError,
    WrongState,
)

from tests.drivers.postgres import Preparation, TestDatabase
from tests.integration.admin.plane import Plane, plane_over, with_administrator

ACME = "tenants/acme"
SALES, EMEA = f"{ACME}/departments/sales", f"{ACME}/departments/emea"
CREATED, CHANGED, DELETED = pb.TreeChange.ACTION_CREATED, pb.TreeChange.ACTION_CHANGED, pb.TreeChange.ACTION_DELETED
USER, SERVICE = principals_pb2.Principal.KIND_USER, principals_pb2.Principal.KIND_SERVICE_ACCOUNT


def company() -> pb.Tree:
    """A company with all that a document can have."""
    return pb.Tree(
        tenant=pb.TreeTenant(display_name="Acme", time_zone="Europe/Berlin"),
        principals=[
            pb.TreePrincipal(id="ann", kind=USER, display_name="Ann", email="ann@acme.example"),
            pb.TreePrincipal(id="chat", kind=SERVICE),
        ],
        groups=[pb.TreeGroup(id="staff", display_name="Staff", members=pb.TreeIds(ids=["ann"]))],
        roles=[
            pb.TreeRole(id="teller", description="Counts.", permissions=pb.TreeIds(ids=["usage.get", "usage.list"]))
        ],
        # Below one another in no order.
        departments=[
            pb.TreeDepartment(id="emea", parent="sales", cost_centre="4711"),
            pb.TreeDepartment(id="sales", display_name="Sales", owner="ann"),
        ],
        projects=[pb.TreeProject(id="crm", department="emea", owner="ann", cost_centre="4712")],
        role_grants=[
            pb.TreeRoleGrant(principal="chat", role="roles/caller", scope=f"{EMEA}/projects/crm"),
            pb.TreeRoleGrant(group="staff", role=f"{ACME}/roles/teller", scope=ACME),
        ],
        limits=[
            pb.TreeLimit(
                id="sales-monthly",
                scope=SALES,
                metric=limits_pb2.LIMIT_METRIC_COST,
                window=limits_pb2.LIMIT_WINDOW_MONTH,
                amount=limits_pb2.LimitAmount(money=Money(units=100)),
                thresholds=pb.TreeThresholds(percents=[50, 80]),
            )
        ],
    )


def apply(tree: pb.Tree, **fields: Any) -> pb.ApplyTreeRequest:
    """Build a request."""
    return pb.ApplyTreeRequest(parent=ACME, tree=tree, **fields)


async def exported(plane: Plane, **fields: Any) -> pb.Tree:
    """Return the tenant as a document."""
    answer: pb.ExportTreeResponse = await plane.call(pb.ExportTreeRequest(parent=ACME, **fields))
    return answer.tree


def summary(answer: pb.ApplyTreeResponse) -> list[tuple[int, str]]:
    """Return what was done to what, grants without their random ids."""
    return [(one.action, one.resource.removeprefix(ACME).split("/g-")[0]) for one in answer.changes]


async def with_acme(database: TestDatabase) -> str:
    """The company, applied."""
    async with plane_over(database) as plane:
        await plane.call(apply(company()))
        return plane.admin_key


@pytest.fixture
def preparation(request: pytest.FixtureRequest) -> Preparation:
    return with_acme if "acme" in request.fixturenames else with_administrator


@pytest.fixture
def acme(plane: Plane) -> Plane:
    """The plane with the company, which `preparation` has put there."""
    return plane


async def test_a_document_makes_a_whole_company_and_says_what_it_made(plane: Plane) -> None:
    """In an order in which nothing needs what comes after it, with an event for each."""
    answer = await plane.call(apply(company()))

    assert summary(answer) == [
        (CREATED, ""),
        (CREATED, "/principals/ann"),
        (CREATED, "/principals/chat"),
        (CREATED, "/groups/staff"),
        (CREATED, "/roles/teller"),
        (CREATED, "/departments/sales"),
        (CREATED, "/departments/emea"),
        (CREATED, "/departments/emea/projects/crm"),
        (CREATED, "/roleGrants"),
        (CREATED, "/roleGrants"),
        (CREATED, "/limits/sales-monthly"),
    ]
    async with plane.database.transaction() as session:
        events = await list_events(session, "acme", size=1000)
    methods = [event.method.rpartition(".")[2] for event in events]
    assert methods[:2] == ["CreateTenant", "CreatePrincipal"]
    assert methods.count("CreateDepartment") == 2
    assert methods[-1] == "ApplyTree"
    assert len(events) == len(answer.changes) + 2  # the group's member, and the document itself


async def test_what_was_exported_changes_nothing_when_it_is_applied(acme: Plane) -> None:
    """Every entry is as it says already, also with everything else to be deleted."""
    tree = await exported(acme)

    answer = await acme.call(apply(tree, prune=True))

    assert (list(answer.changes), answer.unchanged_count) == ([], 11)
    assert [one.id for one in tree.departments] == ["sales", "emea"]


async def test_only_fields_that_a_document_sets_are_changed(acme: Plane) -> None:
    """An empty one is cleared, an absent one stays; the answer says each field before and after."""
    tree = pb.Tree(departments=[pb.TreeDepartment(id="sales", owner="", cost_centre="99")])

    answer = await acme.call(apply(tree))

    (change,) = answer.changes
    fields = [(one.field, one.before, one.after) for one in change.fields]
    assert (change.action, change.resource, fields) == (
        CHANGED,
        SALES,
        [("cost_centre", "", "99"), ("owner", "ann", "")],
    )
    sales = await acme.call(departments_pb2.GetDepartmentRequest(name=SALES))
    assert (sales.display_name, sales.cost_centre, sales.owner) == ("Sales", "99", "")


async def test_every_kind_of_entry_can_be_changed(acme: Plane) -> None:
    """And is then what the document says."""
    tree = company()
    tree.tenant.display_name = "Acme Ltd"
    tree.principals[0].subject, tree.principals[0].issuer = "4711", "https://id.acme.example"
    tree.groups[0].members.CopyFrom(pb.TreeIds(ids=["chat"]))
    tree.roles[0].permissions.ids.append("limits.list")
    tree.departments[0].parent = ""
    tree.projects[0].display_name = "Customers"
    tree.limits[0].amount.money.units = 200

    answer = await acme.call(apply(tree))

    assert {action for action, _ in summary(answer)} == {CHANGED}
    assert len(answer.changes) == 7
    again = await acme.call(apply(tree))
    assert not again.changes
    emea = await acme.call(departments_pb2.GetDepartmentRequest(name=EMEA))
    assert list(emea.path) == [EMEA]


async def test_nothing_is_deleted_unless_it_is_asked_for(acme: Plane) -> None:
    """And then only in the sections of which the document says something, what is below first."""
    tree = pb.Tree(departments=[pb.TreeDepartment(id="sales")])
    sections = [pb.TREE_SECTION_DEPARTMENTS, pb.TREE_SECTION_PROJECTS]

    harmless = await acme.call(apply(tree))
    with pytest.raises(ResourceInUse):
        await acme.call(apply(tree, prune=True))
    pruned = await acme.call(apply(tree, prune=True, prune_sections=sections))

    assert not harmless.changes
    assert summary(pruned) == [(DELETED, "/departments/emea/projects/crm"), (DELETED, "/departments/emea")]
    left = await exported(acme)
    assert (len(left.principals), len(left.limits), len(left.departments)) == (2, 1, 1)


async def test_a_dry_run_answers_the_same_and_changes_nothing(plane: Plane) -> None:
    """What it says is what would be done."""
    planned = await plane.call(apply(company(), validate_only=True))
    with pytest.raises(ResourceNotFound):
        await plane.call(tenants_pb2.GetTenantRequest(name=ACME))

    done = await plane.call(apply(company()))

    assert summary(planned) == summary(done)


async def test_of_a_document_with_one_fault_nothing_is_done(plane: Plane) -> None:
    """One transaction: what stands before the fault is not there either."""
    tree = company()
    tree.limits[0].overshoot.units = 1

    with pytest.raises(InvalidRequest, match=r"tree.limits\[sales-monthly\].overshoot"):
        await plane.call(apply(tree))

    with pytest.raises(ResourceNotFound):
        await plane.call(tenants_pb2.GetTenantRequest(name=ACME))


async def test_a_repeated_request_is_answered_once(plane: Plane) -> None:
    """With what it was answered before."""
    request = apply(company(), request_id=str(uuid4()))

    assert await plane.call(request) == await plane.call(request)


FAULTS = [
    (pb.Tree(departments=[pb.TreeDepartment(id="UP")]), r"departments\[UP\].id"),
    (pb.Tree(departments=[pb.TreeDepartment(id="d1"), pb.TreeDepartment(id="d1")]), "is there twice"),
    (
        pb.Tree(departments=[pb.TreeDepartment(id="d1", parent="d2"), pb.TreeDepartment(id="d2", parent="d1")]),
        "below itself",
    ),
    (pb.Tree(departments=[pb.TreeDepartment(id="d1", cost_centre="=1+1")]), r"\[d1\].cost_centre"),
    (pb.Tree(departments=[pb.TreeDepartment(id="d1", display_name="x" * 201)]), "at most 200"),
    (pb.Tree(projects=[pb.TreeProject(id="p1")]), r"projects\[p1\].department"),
    (pb.Tree(projects=[pb.TreeProject(id="crm", department="sales")]), "cannot be changed"),
    (pb.Tree(principals=[pb.TreePrincipal(id="ann", kind=SERVICE)]), "cannot be changed"),
    (pb.Tree(principals=[pb.TreePrincipal(id="bob")]), "must be KIND_USER"),
    (pb.Tree(principals=[pb.TreePrincipal(id="bob", kind=SERVICE, email="b@b.example")]), "KIND_USER only"),
    (pb.Tree(principals=[pb.TreePrincipal(id="ann", subject="1")]), "together with issuer"),
    (pb.Tree(limits=[pb.TreeLimit(id="sales-monthly", scope=EMEA)]), "cannot be changed"),
    (pb.Tree(role_grants=[pb.TreeRoleGrant(principal="ann", role="roles/nobody", scope=ACME)]), "must be one of"),
    (pb.Tree(role_grants=[pb.TreeRoleGrant(principal="ann", role="roles/caller", scope="platform")]), r"\].scope"),
]


@pytest.mark.parametrize(("tree", "said"), FAULTS, ids=[said for _, said in FAULTS])
async def test_a_fault_is_named_by_its_place(acme: Plane, tree: pb.Tree, said: str) -> None:
    """Whoever wrote the file finds the entry."""
    with pytest.raises(InvalidRequest, match=said):
        await acme.call(apply(tree))


@pytest.mark.parametrize(
    ("tree", "refusal"),
    [
        (pb.Tree(departments=[pb.TreeDepartment(id="d1", parent="nowhere")]), ResourceNotFound),
        (pb.Tree(departments=[pb.TreeDepartment(id="d1", owner="nobody")]), ResourceNotFound),
        (pb.Tree(departments=[pb.TreeDepartment(id="gone")]), ResourceExists),
        (pb.Tree(projects=[pb.TreeProject(id="p1", department="nowhere")]), ResourceNotFound),
        (pb.Tree(projects=[pb.TreeProject(id="p1", department="sales", owner="chat")]), WrongState),
        (pb.Tree(principals=[pb.TreePrincipal(id="eve", kind=USER, email="Ann@acme.example")]), ResourceExists),
        (pb.Tree(departments=[pb.TreeDepartment(id="sales", parent="emea")]), ResourceInUse),
    ],
)
async def test_many_at_once_are_refused_like_one(acme: Plane, tree: pb.Tree, refusal: type[TollhouseError]) -> None:
    """What the single methods check is checked."""
    await acme.call(departments_pb2.CreateDepartmentRequest(parent=ACME, department_id="gone"))
    await acme.call(departments_pb2.DeleteDepartmentRequest(name=f"{ACME}/departments/gone"))
    await acme.call(principals_pb2.DisablePrincipalRequest(name=f"{ACME}/principals/chat"))

    with pytest.raises(refusal):
        await acme.call(apply(tree))


@pytest.mark.parametrize("field", ["email", "subject"])
@pytest.mark.parametrize("inside", [True, False])
async def test_of_many_people_the_one_who_is_there_already_is_named(acme: Plane, field: str, inside: bool) -> None:
    """Whether the other one is in the document or in the tenant."""
    issuer = "https://issuer.example" if field == "subject" else ""
    who: dict[str, Any] = {"kind": USER, "issuer": issuer, field: "Same@acme.example"}
    first = pb.TreePrincipal(id="first", **who)
    crowd = [pb.TreePrincipal(id=f"p{number}", kind=USER) for number in range(20)]
    again = pb.TreePrincipal(id="second", **who)
    if not inside:
        await acme.call(apply(pb.Tree(principals=[first])))

    with pytest.raises(ResourceExists, match=f"of {ACME}/principals/second"):
        await acme.call(apply(pb.Tree(principals=[*([first] if inside else []), *crowd, again])))


async def test_a_department_admin_stays_within_his_department(acme: Plane) -> None:
    """He changes what is below, and nothing beside it; a tenant's grant in his document is refused."""
    key = await acme.key("acme", "boss", ("department-admin", SALES))
    inside = pb.Tree(
        departments=[
            pb.TreeDepartment(id="apac", parent="sales"),
            pb.TreeDepartment(id="japan", parent="apac", display_name="Japan"),
        ],
        projects=[pb.TreeProject(id="shop", department="japan")],
    )
    grants = {
        ACME: pb.Tree(role_grants=[pb.TreeRoleGrant(principal="boss", role="roles/tenant-admin", scope=ACME)]),
        SALES: pb.Tree(role_grants=[pb.TreeRoleGrant(principal="boss", role="roles/tenant-admin", scope=SALES)]),
    }
    beside = pb.Tree(departments=[pb.TreeDepartment(id="labs")])

    made = await acme.call(apply(inside, scope=SALES), key=key)

    assert len(made.changes) == 3
    for tree, scope in ((inside, ""), (grants[ACME], ""), (grants[ACME], SALES), (grants[SALES], SALES), (beside, "")):
        with pytest.raises((PermissionDenied, InvalidRequest)):
            await acme.call(apply(tree, scope=scope), key=key)
    with pytest.raises(InvalidRequest, match="outside"):
        await acme.call(apply(beside, scope=SALES), key=key)
    part = await acme.call(pb.ExportTreeRequest(parent=ACME, scope=SALES), key=key)
    assert [one.id for one in part.tree.departments] == ["sales", "apac", "japan", "emea"]
    assert not part.tree.principals


async def test_pruning_a_part_leaves_the_rest_and_the_part_itself(acme: Plane) -> None:
    """What is not in the document goes below the department, not the department, not what is beside it."""
    await acme.call(departments_pb2.CreateDepartmentRequest(parent=ACME, department_id="labs"))
    tree = pb.Tree(departments=[pb.TreeDepartment(id="apac", parent="sales")])
    sections = [pb.TREE_SECTION_DEPARTMENTS, pb.TREE_SECTION_PROJECTS]

    await acme.call(apply(tree, scope=SALES, prune=True, prune_sections=sections))

    assert [one.id for one in (await exported(acme)).departments] == ["labs", "sales", "apac"]


@pytest.mark.parametrize("role", ["department-admin", "finance", "auditor", "caller", "read-only"])
async def test_a_document_gives_nobody_more_than_he_has(acme: Plane, role: str) -> None:
    """Whatever role he has on the whole tenant, short of its administrator."""
    key = await acme.key("acme", "eve", (role, ACME))
    trees = (
        pb.Tree(role_grants=[pb.TreeRoleGrant(principal="eve", role="roles/tenant-admin", scope=ACME)]),
        pb.Tree(groups=[pb.TreeGroup(id="staff", members=pb.TreeIds(ids=["ann", "eve"]))]),
        pb.Tree(principals=[pb.TreePrincipal(id="mallory", kind=USER)]),
        pb.Tree(limits=[pb.TreeLimit(id="sales-monthly", amount=limits_pb2.LimitAmount(money=Money(units=999)))]),
        pb.Tree(tenant=pb.TreeTenant(display_name="Eve's")),
    )
    before = await exported(acme)

    for tree in trees:
        with pytest.raises(PermissionDenied):
            await acme.call(apply(tree), key=key)

    assert await exported(acme) == before


async def test_only_the_platform_creates_a_tenant_by_a_document(acme: Plane) -> None:
    """The administrator of another tenant is refused before anything is told."""
    key = await acme.key("acme", "root", ("tenant-admin", ACME))

    with pytest.raises(PermissionDenied):
        await acme.call(pb.ApplyTreeRequest(parent="tenants/other", tree=company()), key=key)


async def test_a_tenants_own_administrator_applies_what_he_could_do_singly(acme: Plane) -> None:
    """All but the creation of the tenant."""
    key = await acme.key("acme", "root", ("tenant-admin", ACME))
    tree = company()
    tree.departments.append(pb.TreeDepartment(id="labs"))
    tree.role_grants.append(pb.TreeRoleGrant(principal="ann", role="roles/finance", scope=f"{ACME}/departments/labs"))

    answer = await acme.call(apply(tree), key=key)

    assert summary(answer) == [(CREATED, "/departments/labs"), (CREATED, "/roleGrants")]
    grants = await acme.call(roles_pb2.ListRoleGrantsRequest(parent=ACME, principal=f"{ACME}/principals/ann"))
    assert [one.role for one in grants.role_grants] == ["roles/finance"]


async def test_a_deleted_tenant_is_not_applied_to(acme: Plane) -> None:
    """Neither made anew nor changed."""
    await acme.call(tenants_pb2.DeleteTenantRequest(name=ACME))

    with pytest.raises(ResourceNotFound):
        await acme.call(apply(company()))


async def test_etags_of_what_a_document_has_changed_are_new(acme: Plane) -> None:
    """Who has read it before cannot overwrite it."""
    before = await acme.call(departments_pb2.GetDepartmentRequest(name=SALES))
    await acme.call(apply(pb.Tree(departments=[pb.TreeDepartment(id="sales", cost_centre="1")])))

    stale = departments_pb2.Department(name=SALES, display_name="x", etag=before.etag)
    with pytest.raises(EtagMismatch):
        await acme.call(departments_pb2.UpdateDepartmentRequest(department=stale))
