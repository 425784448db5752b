"""Kept content over real PostgreSQL and OpenBao: what is kept, who reads it, and how it ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tollhouse.admin.v1 import contents_pb2 as pb
from tollhouse.admin.v1 import departments_pb2, roles_pb2
from tollhouse_server.access.roles import ROLES
from tollhouse_server.errors import (
    DutiesConflict,
    EtagMismatch,
    InvalidRequest,
    KeyDestroyed,
    MergeObstructed,
    PermissionDenied,
    ResourceNotFound,
)

from tests.drivers.openbao import TestOpenBao
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.archive import ACME, ANSWER, CRM, EMEA, PROMPT, Archive, Caller, opened, reader
from tests.integration.admin.plane import PATIENCE_SECONDS, call_of, rpc_of


async def dump(database: TestDatabase) -> bytes:
    """Return all rows of all tables as text, sealed bytes as they are."""
    connection = await asyncpg.connect(database.root_dsn)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [await connection.fetch(f'TABLE "{table[0]}"') for table in tables]
    finally:
        await connection.close()
    return b"\n".join(
        value if isinstance(value, bytes) else str(value).encode() for found in rows for row in found for value in row
    )


async def test_nothing_is_kept_unless_a_policy_says_so(archive: Archive) -> None:
    """Neither before the first word, nor after a policy has been taken back."""
    await archive.policies.reload()
    before = await archive.offer()
    await archive.set_policy(keep="NONE")
    after = await archive.offer()

    policy = await archive.plane.call(pb.GetContentPolicyRequest(name=f"{ACME}/contentPolicy"))

    assert (before, after) == (None, None)
    assert not archive.keeping.keeps("acme")
    assert (policy.keep, policy.retention_days) == (pb.CONTENT_KEEP_NONE, 30)


async def test_a_kept_call_is_read_by_its_reader_and_in_the_clear_nowhere(
    archive: Archive, fresh_database: TestDatabase
) -> None:
    """The prompt as it was sent and the answer as it was given; the database has neither."""
    await archive.set_policy()
    name = await archive.call()
    key = await reader(archive)

    content = await archive.plane.call(pb.GetContentRequest(name=name), key=key)
    listed = await archive.plane.call(pb.ListContentsRequest(parent=ACME), key=key)

    assert content.prompt_json.encode() == PROMPT
    assert content.answer_json.encode() == ANSWER
    assert (content.project, content.principal) == (CRM, f"{ACME}/principals/ann")
    assert [(one.name, one.prompt_json, one.prompt_bytes) for one in listed.contents] == [(name, "", len(PROMPT))]
    assert b"canary-of-a" not in await dump(fresh_database)


async def test_prompts_alone_are_kept_where_the_policy_says_so(archive: Archive) -> None:
    """An answer that nobody wanted kept is not."""
    await archive.set_policy(keep="PROMPTS")
    name = await archive.call()

    content = await archive.plane.call(pb.GetContentRequest(name=name), key=await reader(archive))

    assert content.prompt_json.encode() == PROMPT
    assert (content.answer_json, content.answer_bytes) == ("", 0)


async def test_only_calls_of_the_scopes_of_the_policy_are_kept(archive: Archive) -> None:
    """A department with all below it, or a project."""
    await archive.set_policy(scopes=[f"{ACME}/departments/sales"])
    inside, outside = await archive.offer(), await archive.offer(Caller(department_path=("legal",), project_id="law"))
    await archive.set_policy(scopes=[CRM])
    in_project, beside = await archive.offer(), await archive.offer(Caller(project_id="other"))

    assert [name is not None for name in (inside, outside, in_project, beside)] == [True, False, True, False]


async def test_a_policy_names_departments_and_projects_of_its_own_tenant(archive: Archive) -> None:
    """Anything else is a slip of the pen."""
    for scope in ("tenants/acme", "tenants/globex/departments/sales", "nonsense"):
        with pytest.raises(InvalidRequest):
            await archive.set_policy(scopes=[scope])


async def test_a_policy_is_changed_by_its_mask_and_etag(archive: Archive) -> None:
    """What the mask does not name stays, and nobody overwrites what he has not seen."""
    first = await archive.set_policy(retention_days=7)
    change = pb.ContentPolicy(name=first.name, must_keep=True, etag=first.etag)
    request = pb.UpdateContentPolicyRequest(content_policy=change, update_mask=FieldMask(paths=["must_keep"]))

    second = await archive.plane.call(request)

    assert (second.keep, second.retention_days, second.must_keep) == (first.keep, 7, True)
    with pytest.raises(EtagMismatch):
        await archive.plane.call(request)


async def test_no_other_role_reads_content(archive: Archive) -> None:
    """Separation of duties: who administers, pays or audits sees none of it."""
    await archive.set_policy()
    name = await archive.call()
    roles = sorted(set(ROLES) - {"platform-admin", "content-reader"})
    keys = [await archive.plane.key("acme", f"a-{role}", (role, ACME)) for role in roles]

    for request in (pb.GetContentRequest(name=name), pb.ListContentsRequest(parent=ACME)):
        for key in (None, *keys):
            with pytest.raises(PermissionDenied):
                await archive.plane.call(request, key=key)


async def test_an_administrator_appoints_readers_and_is_none(archive: Archive) -> None:
    """He may let others read; himself he cannot, nor can another administrator let him."""
    key = await archive.plane.key("acme", "boss", ("tenant-admin", ACME))

    def grant(principal: str) -> roles_pb2.CreateRoleGrantRequest:
        role = roles_pb2.RoleGrant(principal=f"{ACME}/principals/{principal}", role="roles/content-reader", scope=ACME)
        return roles_pb2.CreateRoleGrantRequest(parent=ACME, role_grant=role)

    await archive.plane.key("acme", "eve")
    await archive.plane.call(grant("eve"), key=key)

    for by in (key, None):
        with pytest.raises(DutiesConflict):
            await archive.plane.call(grant("boss"), key=by)


async def test_a_reader_of_a_department_reads_its_calls_alone(archive: Archive) -> None:
    """He names where his permission is; a call elsewhere is not there for him."""
    await archive.set_policy()
    own, other = await archive.call(), await archive.call(Caller(department_path=("legal",), project_id="law"))
    key = await reader(archive, scope=EMEA)

    content = await archive.plane.call(pb.GetContentRequest(name=own, scope=EMEA), key=key)
    listed = await archive.plane.call(pb.ListContentsRequest(parent=EMEA), key=key)

    assert content.name == own
    assert [one.name for one in listed.contents] == [own]
    with pytest.raises(ResourceNotFound):
        await archive.plane.call(pb.GetContentRequest(name=other, scope=EMEA), key=key)
    with pytest.raises(PermissionDenied):
        await archive.plane.call(pb.GetContentRequest(name=own), key=key)


async def test_who_read_what_is_on_the_trail_without_what_he_read(
    archive: Archive, fresh_database: TestDatabase
) -> None:
    """Reading is an act, and has come from somewhere."""
    await archive.set_policy()
    request = pb.GetContentRequest(name=await archive.call())
    key = f"Bearer {await reader(archive)}"
    principal = await archive.plane.directory.authenticate(key, patience_seconds=PATIENCE_SECONDS)
    call = replace(call_of(principal, rpc_of(request)), peer="ipv4:192.0.2.1:1")

    await archive.plane.handlers["ContentService"].get_content(request, call)

    connection = await asyncpg.connect(fresh_database.root_dsn)
    events = await connection.fetch("SELECT * FROM audit_event WHERE method LIKE '%.GetContent'")
    await connection.close()
    assert [(event["resource"], event["permission"]) for event in events] == [(request.name, "contents.get")]
    assert "reader-" in events[0]["actor"]
    assert (events[0]["personal"], events[0]["sealed_by"]) == ("SEALED", "acme")
    assert "canary" not in str(events)


async def test_contents_are_listed_by_principal_and_time_in_pages(archive: Archive) -> None:
    """The newest first, none twice."""
    await archive.set_policy()
    start = datetime.now(UTC) - timedelta(hours=5)
    names = [await archive.call(at=start + timedelta(hours=hour)) for hour in range(4)]
    await archive.call(Caller(principal_id="bob"))
    key = await reader(archive)
    request = pb.ListContentsRequest(parent=CRM, principal=f"{ACME}/principals/ann", page_size=2)
    request.start_time.FromDatetime(start + timedelta(minutes=1))

    first = await archive.plane.call(request, key=key)
    request.page_token = first.next_page_token
    second = await archive.plane.call(request, key=key)

    assert [one.name for page in (first, second) for one in page.contents] == names[:0:-1]
    assert not second.next_page_token


async def test_all_of_one_person_is_deleted_after_a_dry_run_has_counted_it(archive: Archive) -> None:
    """The right to erasure; others' stays."""
    await archive.set_policy()
    gone, stays = await archive.call(), await archive.call(Caller(principal_id="bob"))
    await archive.call()
    request = pb.DeleteContentsRequest(parent=ACME, principal=f"{ACME}/principals/ann", validate_only=True)

    counted = await archive.plane.call(request)
    request.validate_only = False
    deleted = await archive.plane.call(request)

    key = await reader(archive)
    assert (counted.deleted_count, deleted.deleted_count, deleted.has_more) == (2, 2, False)
    with pytest.raises(ResourceNotFound):
        await archive.plane.call(pb.GetContentRequest(name=gone), key=key)
    assert (await archive.plane.call(pb.GetContentRequest(name=stays), key=key)).name == stays


async def test_one_call_is_deleted(archive: Archive) -> None:
    """By its name, and not twice."""
    await archive.set_policy()
    name = await archive.call()

    await archive.plane.call(pb.DeleteContentRequest(name=name))

    with pytest.raises(ResourceNotFound):
        await archive.plane.call(pb.DeleteContentRequest(name=name))


async def test_an_erased_tenant_is_unreadable_and_goes_on(
    archive: Archive, fresh_database: TestDatabase, openbao: TestOpenBao
) -> None:
    """Nothing that was kept opens, even where its rows and its wrapped key come back from a backup."""
    await archive.set_policy()
    name = await archive.call()
    key = await reader(archive)
    connection = await asyncpg.connect(fresh_database.root_dsn)
    wrapped = await connection.fetchval("SELECT wrapped FROM tenant_key")
    counted = await archive.plane.call(pb.EraseTenantContentRequest(name=ACME, validate_only=True))

    erased = await archive.plane.call(pb.EraseTenantContentRequest(name=ACME))

    assert (counted.erased_count, counted.destroyed_keys) == (erased.erased_count, erased.destroyed_keys) == (1, 1)
    with pytest.raises(KeyDestroyed):
        await archive.plane.call(pb.GetContentRequest(name=name), key=key)
    later = await archive.call()
    assert (await archive.plane.call(pb.GetContentRequest(name=later), key=key)).prompt_json.encode() == PROMPT
    await connection.execute("UPDATE tenant_key SET wrapped = $1, destroyed_at = NULL WHERE version = 1", wrapped)
    await connection.close()
    async with opened(archive.plane, openbao):
        with pytest.raises(KeyDestroyed):
            await archive.plane.call(pb.GetContentRequest(name=name), key=key)


async def test_what_is_kept_of_a_department_does_not_end_with_a_merge_in_silence(archive: Archive) -> None:
    """Its name stands against the merge; the names of its projects become what they are called after it."""
    labs = f"{ACME}/departments/labs"
    await archive.plane.call(departments_pb2.CreateDepartmentRequest(parent=ACME, department_id="labs"))
    merge = departments_pb2.MergeDepartmentRequest(name=EMEA, into_department=labs)
    await archive.set_policy(scopes=[EMEA, CRM])

    with pytest.raises(MergeObstructed, match="tenants/acme/contentPolicy keeps content of"):
        await archive.plane.call(merge)
    await archive.set_policy(scopes=[CRM, labs])
    await archive.plane.call(merge)

    policy = await archive.plane.call(pb.GetContentPolicyRequest(name=f"{ACME}/contentPolicy"))
    assert list(policy.scopes) == [f"{labs}/projects/crm", labs]
