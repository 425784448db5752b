"""From a key to a principal, and how fast a key stops working."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import api_keys_pb2, departments_pb2, principals_pb2, projects_pb2, tenants_pb2
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.errors import CredentialsInvalid, PermissionDenied, StoreUnavailable
from tollhouse_server.identity.directory import Directory
from tollhouse_server.identity.keys import checksum, make_key

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.plane import PATIENCE_SECONDS, PEPPER, Plane

CRM = "tenants/acme/departments/emea/projects/crm"


async def test_a_key_stands_for_its_principal_project_and_departments(plane: Plane) -> None:
    """The principal knows the whole chain from the top department to the project."""
    await plane.tenant("acme")
    key = await plane.key("acme", "crm-service", project=CRM)

    principal = await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)

    assert (principal.tenant_id, principal.principal_id, principal.project_id) == ("acme", "crm-service", "crm")
    assert principal.department_ids == ("sales", "emea")
    assert principal.credential_name == f"{CRM}/apiKeys/{principal.credential_id}"


async def test_an_administrators_key_has_no_project(plane: Plane) -> None:
    """A key made on the tenant is for administration."""
    principal = await plane.directory.authenticate(f"Bearer {plane.admin_key}", patience_seconds=PATIENCE_SECONDS)

    assert (principal.project_id, principal.department_ids) == (None, ())
    assert principal.credential_name == f"tenants/platform/apiKeys/{principal.credential_id}"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer th_live_x", "th_live_x"])
async def test_what_is_not_a_bearer_key_is_refused(plane: Plane, header: str | None) -> None:
    """Malformed headers are refused without asking the database."""
    with pytest.raises(CredentialsInvalid):
        await plane.directory.authenticate(header, patience_seconds=PATIENCE_SECONDS)


async def test_every_refusal_sounds_the_same(plane: Plane) -> None:
    """An unknown id and a wrong secret of a known id are told apart by nothing."""
    unknown = make_key("live").text
    known_id = plane.admin_key.split("_")[2]
    stolen = _forged(known_id)

    with pytest.raises(CredentialsInvalid) as first:
        await plane.directory.authenticate(f"Bearer {unknown}", patience_seconds=PATIENCE_SECONDS)
    with pytest.raises(CredentialsInvalid) as second:
        await plane.directory.authenticate(f"Bearer {stolen}", patience_seconds=PATIENCE_SECONDS)

    assert str(first.value) == str(second.value)


def _forged(key_id: str) -> str:
    body = f"th_live_{key_id}_{'a' * 40}"
    return body + checksum(body)


async def test_whatever_ends_above_a_key_ends_the_key(plane: Plane) -> None:
    """Revocation, a disabled principal, a suspended tenant, a deleted project: refused as soon as it is known."""
    await plane.tenant("acme")
    key = await plane.key("acme", "crm-service", project=CRM)
    principal, tenant = "tenants/acme/principals/crm-service", "tenants/acme"
    ends_and_undoes = [
        (principals_pb2.DisablePrincipalRequest(name=principal), principals_pb2.EnablePrincipalRequest(name=principal)),
        (tenants_pb2.SuspendTenantRequest(name=tenant), tenants_pb2.ResumeTenantRequest(name=tenant)),
        (projects_pb2.DeleteProjectRequest(name=CRM), None),
    ]

    for end, undo in ends_and_undoes:
        await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)
        await plane.call(end)
        await plane.watch.refresh()
        with pytest.raises(CredentialsInvalid):
            await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)
        if undo is not None:
            await plane.call(undo)
            await plane.watch.refresh()


async def test_a_revoked_key_is_refused_within_two_seconds(plane: Plane) -> None:
    """A running watch drops what it knew; nobody has to tell it."""
    await plane.tenant("acme")
    key = await plane.key("acme", "crm-service", project=CRM)
    principal = await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(plane.watch.run())
        await plane.call(api_keys_pb2.RevokeApiKeyRequest(name=principal.credential_name))
        revoked_at = time.monotonic()
        for _ in range(1000):
            if not await _is_admitted(plane, key):
                break
            await asyncio.sleep(0.01)
        seconds = time.monotonic() - revoked_at
        watching.cancel()

    assert seconds < 2


async def _is_admitted(plane: Plane, key: str) -> bool:
    try:
        await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)
    except CredentialsInvalid:
        return False
    return True


async def test_an_expired_key_is_refused_though_nothing_changed(plane: Plane) -> None:
    """Expiry is looked at on every call, also on a key in memory."""
    await plane.tenant("acme")
    key = await plane.key("acme", "crm-service", project=CRM)
    principal = await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)
    expiry = Timestamp()
    expiry.FromDatetime(datetime.now(UTC) + timedelta(seconds=3))
    await plane.call(
        api_keys_pb2.UpdateApiKeyRequest(
            api_key=api_keys_pb2.ApiKey(name=principal.credential_name, expire_time=expiry),
            update_mask=FieldMask(paths=["expire_time"]),
        )
    )
    await plane.watch.refresh()
    await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)

    await asyncio.sleep(3.05)
    await plane.watch.refresh()  # hears that nothing changed

    with pytest.raises(CredentialsInvalid):
        await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)


async def test_a_moved_department_changes_the_chain_of_its_keys(plane: Plane) -> None:
    """Who pays from now on is read again after a move."""
    await plane.tenant("acme")
    key = await plane.key("acme", "crm-service", project=CRM)
    await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)

    await plane.call(departments_pb2.MoveDepartmentRequest(name="tenants/acme/departments/emea"))
    await plane.watch.refresh()

    principal = await plane.directory.authenticate(f"Bearer {key}", patience_seconds=PATIENCE_SECONDS)
    assert principal.department_ids == ("emea",)


@pytest.mark.parametrize("patience_seconds", [0.3, 0.0, -1.0])
async def test_a_server_that_cannot_ask_admits_nobody_and_says_why(plane: Plane, patience_seconds: float) -> None:
    """A good key is refused as unknowable, not as wrong, when the caller has waited for as long as he can."""
    directory = Directory(plane.database, EpochWatch(plane.database), PEPPER)
    began_at = time.monotonic()

    with pytest.raises(StoreUnavailable):
        await directory.authenticate(f"Bearer {plane.admin_key}", patience_seconds=patience_seconds)

    assert max(0.0, patience_seconds) - 0.05 <= time.monotonic() - began_at < patience_seconds + 2


def count_asks(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows whenever the database is asked something."""
    asked: list[str] = []

    def counting(name: str) -> Callable[[], Any]:
        way = getattr(database, name)

        def ask() -> Any:
            asked.append(name)
            return way()

        return ask

    for name in ("transaction", "single_query"):
        monkeypatch.setattr(database, name, counting(name))
    return asked


async def test_calls_that_arrive_in_an_outage_wait_for_its_end(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are admitted on the first news; until then none of them asks the database, or it would never come up."""
    asked = count_asks(plane.database, monkeypatch)
    watch = EpochWatch(plane.database)
    directory = Directory(plane.database, watch, PEPPER)
    bearer = f"Bearer {plane.admin_key}"
    calls = [asyncio.create_task(directory.authenticate(bearer, patience_seconds=20)) for _ in range(100)]
    await asyncio.sleep(0.2)
    asked_meanwhile = len(asked)

    await watch.refresh()
    principals = await asyncio.gather(*calls)

    assert asked_meanwhile == 0
    assert {principal.tenant_id for principal in principals} == {"platform"}
    assert len(asked) == 2


async def test_many_callers_of_one_key_ask_the_database_once(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change, a thousand calls of a busy key cost one query."""
    asked = count_asks(plane.database, monkeypatch)
    directory = Directory(plane.database, plane.watch, PEPPER)

    bearer = f"Bearer {plane.admin_key}"
    await asyncio.gather(*(directory.authenticate(bearer, patience_seconds=PATIENCE_SECONDS) for _ in range(1000)))

    assert len(asked) == 1


async def test_the_key_is_shown_once_and_stored_nowhere(plane: Plane, fresh_database: TestDatabase) -> None:
    """Neither a repetition of the request, nor a dry run, nor any table has the key's text."""
    await plane.tenant("acme")
    await plane.key("acme", "someone")
    request = api_keys_pb2.CreateApiKeyRequest(
        parent="tenants/acme",
        api_key=api_keys_pb2.ApiKey(principal="tenants/acme/principals/someone"),
        request_id="6b8f3a52-94c0-4d9b-8d57-7c1f3b2f9a11",
    )

    first = await plane.call(request)
    again = await plane.call(request)
    request.validate_only, request.request_id = True, ""
    dry = await plane.call(request)

    assert first.secret
    assert (again.api_key, again.secret, dry.secret) == (first.api_key, "", "")
    connection = await asyncpg.connect(fresh_database.root_dsn)
    for table in ("api_key", "audit_event", "admin_request"):
        rows = await connection.fetch(f"SELECT t::text AS row FROM {table} t")  # noqa: S608 - a constant
        assert rows
        secret = first.secret.rsplit("_", 1)[1]
        assert not any(secret in row["row"] or secret.encode().hex() in row["row"] for row in rows)
    await connection.close()


async def test_nobody_makes_a_key_of_someone_mightier(plane: Plane) -> None:
    """A department's administrator cannot become the tenant's by issuing a key in his name."""
    await plane.tenant("acme")
    dean = await plane.key("acme", "dean", ("department-admin", "tenants/acme/departments/sales"))
    await plane.key("acme", "boss", ("tenant-admin", "tenants/acme"))
    await plane.key("acme", "crm-service", ("caller", CRM))

    with pytest.raises(PermissionDenied):
        await plane.call(_key_for("boss"), key=dean)

    made = await plane.call(_key_for("crm-service"), key=dean)
    assert made.secret


def _key_for(principal: str) -> api_keys_pb2.CreateApiKeyRequest:
    return api_keys_pb2.CreateApiKeyRequest(
        parent=CRM, api_key=api_keys_pb2.ApiKey(principal=f"tenants/acme/principals/{principal}")
    )
