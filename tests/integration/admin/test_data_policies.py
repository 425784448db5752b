"""Data policies through the administration plane."""

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import data_policies_pb2 as pb
from tollhouse_server.database.rows import run_sql
from tollhouse_server.dlp.live import LiveDataPolicies
from tollhouse_server.dlp.policy import DigestKey
from tollhouse_server.errors import EtagMismatch, InvalidRequest, PermissionDenied, ResourceNotFound

from tests.integration.admin.plane import PEPPER, Plane

TENANT = "tenants/acme"
SALES = f"{TENANT}/departments/sales"
EMAIL = "jane.doe@example.com"


@pytest.fixture
async def company(plane: Plane) -> Plane:
    """Tenant acme: department sales, and emea below it."""
    await plane.tenant("acme")
    return plane


def rule(*detectors: str, action: int = pb.DATA_ACTION_MASK, directions: tuple[int, ...] = (1, 2)) -> pb.DataRule:
    return pb.DataRule(
        detectors=detectors,
        directions=[pb.DataDirection.ValueType(one) for one in directions],
        action=pb.DataAction.ValueType(action),
    )


async def set_policy(
    plane: Plane, scope: str, *paths: str, key: str | None = None, validate_only: bool = False, **fields: Any
) -> pb.DataPolicy:
    request = pb.UpdateDataPolicyRequest(
        data_policy=pb.DataPolicy(name=f"{scope}/dataPolicy", **fields),
        update_mask=FieldMask(paths=paths) if paths else None,
        validate_only=validate_only,
    )
    answer: pb.DataPolicy = await plane.call(request, key=key)
    return answer


async def tried(plane: Plane, scope: str, text: str, direction: int = 0) -> pb.TestDataPolicyResponse:
    request = pb.TestDataPolicyRequest(
        name=f"{scope}/dataPolicy", text=text, direction=pb.DataDirection.ValueType(direction)
    )
    answer: pb.TestDataPolicyResponse = await plane.call(request)
    return answer


async def test_a_department_is_stricter_than_its_tenant_never_milder(company: Plane) -> None:
    """Its mildest word and its exceptions change nothing of what the tenant says; its strictest does."""
    await set_policy(company, TENANT, rules=[rule("EMAIL")])
    await set_policy(
        company,
        SALES,
        rules=[rule("EMAIL", action=pb.DATA_ACTION_ALLOW), rule("PAYMENT_CARD", action=pb.DATA_ACTION_BLOCK)],
        exceptions=[pb.DataException(value=EMAIL)],
    )

    above = await tried(company, TENANT, f"{EMAIL} 4111111111111111")
    below = await tried(company, SALES, f"{EMAIL} 4111111111111111")

    assert (above.masked_text, above.blocked) == ("[EMAIL_1] 4111111111111111", False)
    assert (below.masked_text, below.blocked) == ("", True)
    assert [(one.detector, one.action, one.start, one.end) for one in below.matches] == [
        ("EMAIL", pb.DATA_ACTION_MASK, 0, 20),
        ("PAYMENT_CARD", pb.DATA_ACTION_BLOCK, 21, 37),
    ]


async def test_an_exception_is_kept_as_a_digest_alone(company: Plane) -> None:
    """Neither the answer nor the row nor the trail has the value, and it is let pass however it is written."""
    set_to = await set_policy(
        company, TENANT, rules=[rule("CONTACT")], exceptions=[pb.DataException(value="+49 30 901820", note="the desk")]
    )
    again = await set_policy(company, TENANT, "exceptions", exceptions=set_to.exceptions)

    kept = await tried(company, TENANT, "Call +49-30-901820 or +49 30 901821.")

    assert kept.masked_text == "Call +49-30-901820 or [PHONE_1]."
    assert set_to.exceptions == again.exceptions
    assert (set_to.exceptions[0].value, len(set_to.exceptions[0].digest)) == ("", 32)
    async with company.database.transaction() as session:
        policies = (await run_sql(session, "SELECT policy::text FROM data_policy")).all()
        trail = (await run_sql(session, "SELECT * FROM audit_event")).all()
    assert "901820" not in f"{policies}{trail}"
    assert "UpdateDataPolicy" in str(trail)


async def test_a_policy_is_in_force_when_it_is_loaded(company: Plane) -> None:
    """What a server loads is what the plane was told; a tenant without rules is not watched."""
    live = LiveDataPolicies(company.database, DigestKey(PEPPER))
    await set_policy(company, TENANT, rules=[rule("EMAIL", directions=(1,))])
    await live.reload()
    before = live.current
    await company.call(pb.DeleteDataPolicyRequest(name=f"{TENANT}/dataPolicy"))
    await live.reload()

    assert before.tenants == {"acme"}
    assert before.screens("acme", ("sales",)).prompt is not None
    assert before.screens("acme").answer is None
    assert live.current.tenants == frozenset()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"rules": [rule("NOTHING")]}, "data_policy.rules[0].detectors"),
        ({"rules": [rule("custom:none")]}, "data_policy.rules[0].detectors"),
        ({"patterns": [pb.DataPattern(name="x", pattern="(a+)+b")]}, "data_policy.patterns[0].pattern"),
        ({"patterns": [pb.DataPattern(name="x", pattern="(?<=a)bcd")]}, "data_policy.patterns[0].pattern"),
        ({"patterns": [pb.DataPattern(name="x", pattern="^abc")]}, "data_policy.patterns[0].pattern"),
        ({"patterns": [pb.DataPattern(name="x", pattern="ab?")]}, "data_policy.patterns[0].pattern"),
        ({"patterns": [pb.DataPattern(name="x", pattern="abc")] * 2}, "data_policy.patterns[1].name"),
        ({"exceptions": [pb.DataException(note="nothing")]}, "data_policy.exceptions[0]"),
        ({"exceptions": [pb.DataException(pattern="[")]}, "data_policy.exceptions[0].pattern"),
    ],
)
async def test_what_cannot_be_looked_for_is_refused_by_its_place(
    company: Plane, fields: dict[str, Any], path: str
) -> None:
    """A slip of the pen would let everything pass."""
    with pytest.raises(InvalidRequest) as raised:
        await set_policy(company, TENANT, **fields)

    assert [one.path for one in raised.value.violations] == [path]


async def test_versions_dry_runs_and_missing_policies(company: Plane) -> None:
    """An old etag is refused, a dry run changes nothing, and what says nothing cannot be deleted."""
    first = await set_policy(company, TENANT, rules=[rule("EMAIL")])
    preview = await set_policy(company, TENANT, rules=[rule("PHONE")], validate_only=True)
    second = await set_policy(company, TENANT, rules=[rule("JWT")], etag=first.etag)

    assert preview.rules[0].detectors == ["PHONE"]
    assert second.rules[0].detectors == ["JWT"]
    with pytest.raises(EtagMismatch):
        await set_policy(company, TENANT, rules=[rule("PHONE")], etag=first.etag)
    with pytest.raises(ResourceNotFound):
        await company.call(pb.DeleteDataPolicyRequest(name=f"{SALES}/dataPolicy"))
    with pytest.raises(ResourceNotFound):
        await set_policy(company, f"{TENANT}/departments/ghosts", rules=[rule("PHONE")])


async def test_only_who_may_changes_and_tries(company: Plane) -> None:
    """A caller of the tenant cannot find out what slips through."""
    key = await company.key("acme", "bot", ("caller", TENANT))
    await company.watch.refresh()

    for request in (
        pb.GetDataPolicyRequest(name=f"{TENANT}/dataPolicy"),
        pb.TestDataPolicyRequest(name=f"{TENANT}/dataPolicy", text="x"),
        pb.DeleteDataPolicyRequest(name=f"{TENANT}/dataPolicy"),
        pb.ListDataFindingsRequest(parent=TENANT),
    ):
        with pytest.raises(PermissionDenied):
            await company.call(request, key=key)


async def test_detectors_and_findings_come_in_pages(company: Plane) -> None:
    """Every one once, findings the newest first, those of a department on request."""
    names, token = [], ""
    while True:
        page = await company.call(pb.ListDataDetectorsRequest(page_size=7, page_token=token))
        names += [one.name for one in page.data_detectors]
        if not (token := page.next_page_token):
            break
    async with company.database.transaction() as session:
        for number in range(5):
            values = {"id": str(uuid4()), "number": number, "department": "sales" if number % 2 else "emea"}
            await run_sql(
                session,
                "INSERT INTO data_finding (tenant_id, found_at, request_id, direction, detector, action, "
                "department_id, value_count) VALUES ('acme', timestamptz '2026-01-01' + :number * interval '1 day', "
                "CAST(:id AS uuid), 'PROMPT', 'EMAIL', 'MASK', :department, :number + 1)",
                values,
            )
    first = await company.call(pb.ListDataFindingsRequest(parent=TENANT, page_size=3))
    rest = await company.call(pb.ListDataFindingsRequest(parent=TENANT, page_size=3, page_token=first.next_page_token))
    of_sales = await company.call(pb.ListDataFindingsRequest(parent=SALES))

    assert len(names) == len(set(names)) > 15
    assert [one.count for one in (*first.data_findings, *rest.data_findings)] == [5, 4, 3, 2, 1]
    assert [one.count for one in of_sales.data_findings] == [4, 2]
    assert of_sales.data_findings[0].department == SALES
