"""Personal data of events on a real OpenBao: sealed, opened, erased with the chain whole, left out without Vault."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import principals_pb2, tenants_pb2
from tollhouse_admin.audit_proofs import Part, Report, verify_trail
from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.principals_service import PrincipalService
from tollhouse_server.api.services.tenants_service import TenantService
from tollhouse_server.api.witness import Witness
from tollhouse_server.audit.chain import BEGINNING, Walk
from tollhouse_server.audit.personal import Erased, PersonalData, Source, exported
from tollhouse_server.audit.refusals import RefusalLog
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.errors import VaultUnavailable
from tollhouse_server.identity.networks import parse_network
from tollhouse_server.identity.principal import Principal
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.sealing import DataKey
from tollhouse_server.vault.tenant_keys import TenantKeys

from tests.drivers.openbao import TestOpenBao
from tests.integration.audit.conftest import event, links_of, write

SOURCE = Source(address="10.1.2.3", user_agent="curl/8\n\x1b[31m" + "x" * 1000)
PERSON = {"name": "tenants/acme/principals/jo", "displayName": "Jo Doe", "email": "jo@example.com", "etag": "v1"}


@pytest.fixture
async def keys(database: Database, openbao: TestOpenBao) -> AsyncIterator[TenantKeys]:
    """Tenants' data keys."""
    address = VaultAddress(url=openbao.endpoint.address, timeout_seconds=2)
    gateway = VaultClient(address, openbao.endpoint.gateway)
    custodian = VaultClient(address, openbao.endpoint.key_custodian)
    watch = EpochWatch(database)
    await watch.refresh()
    yield TenantKeys(database, watch, gateway=gateway, custodian=custodian)
    await gateway.close()
    await custodian.close()


class NoKeys:
    """Tenants' data keys while Vault is away and none is in memory."""

    async def sealing_key(self, _: str) -> DataKey:
        raise VaultUnavailable

    async def open(self, *_: object, **__: object) -> bytes:
        raise VaultUnavailable


def witness_of(database: Database, personal: PersonalData) -> Witness:
    refusals = RefusalLog(database, Metrics(CollectorRegistry()), personal)
    return Witness(personal, refusals, [parse_network("10.0.0.0/24")])


def call_from(peer: str, *, rpc: str, forwarded_for: str | None = None) -> Call:
    principal = Principal(
        tenant_id="platform",
        principal_id="root",
        credential_id="abcdefghijkl",
        credential_name="",
        project_id=None,
        department_ids=(),
        environment="live",
    )
    return Call(
        rpc=rpc,
        principal=principal,
        domain="platform",
        deadline=time.monotonic() + 10,
        correlation_id="c",
        peer=peer,
        forwarded_for=forwarded_for,
        user_agent="grpc/1",
    )


async def test_personal_data_is_sealed_and_opens_again(database: Database, keys: TenantKeys) -> None:
    """The address, the agent with what can be printed of it, and what says who somebody is; ids stay."""
    personal = PersonalData(keys)
    one = event("acme", resource=PERSON["name"], before=None, after=dict(PERSON))

    (await personal.sealer("acme")).protect(one, SOURCE)
    await write(database, one)

    (link,) = await links_of(database, "acme")
    assert not any(secret in link.line for secret in ("Jo Doe", "jo@example.com", "10.1.2.3", "curl"))
    assert json.loads(link.line)["unmapped"]["after"] == {"name": PERSON["name"], "etag": "v1"}
    opened = await personal.open(link)
    assert opened is not None
    values = opened.values()
    assert values["src_endpoint"] == {"ip": "10.1.2.3"}
    assert values["http_request"]["user_agent"].startswith("curl/8??[31mxxx")
    assert len(values["http_request"]["user_agent"]) == 256
    assert values["personal"]["after"] == {"displayName": "Jo Doe", "email": "jo@example.com"}


async def test_to_whom_statements_go_is_personal(database: Database, keys: TenantKeys) -> None:
    """Addresses in a list are taken out of the chain as a single one is."""
    schedule = {"name": "tenants/acme/deliverySchedules/monthly", "recipients": ["cfo@acme.example"], "day": 3}
    one = event("acme", resource=schedule["name"], before=None, after=dict(schedule))

    (await PersonalData(keys).sealer("acme")).protect(one, SOURCE)
    await write(database, one)

    (link,) = await links_of(database, "acme")
    assert "cfo@" not in link.line
    opened = await PersonalData(keys).open(link)
    assert opened is not None
    assert opened.values()["personal"]["after"] == {"recipients": ["cfo@acme.example"]}


async def test_a_destroyed_key_erases_personal_data_and_the_chain_still_verifies(
    database: Database, keys: TenantKeys
) -> None:
    """In the database, and in an export from before, which only lacks who can open it."""
    personal = PersonalData(keys)
    for number in range(3):
        one = event("acme", number)
        (await personal.sealer("acme")).protect(one, SOURCE)
        await write(database, one)
    links = await links_of(database, "acme")
    before = [f"{exported(link, await personal.open(link))}\n".encode() for link in links]

    await keys.destroy("acme")

    for link in links:
        with pytest.raises(Erased):
            await personal.open(link)
    walk = Walk(sequence=0, hash=BEGINNING, signed={})
    walk.take(await links_of(database, "acme"))
    assert walk.breaks == []
    for lines in (before, [f"{exported(link, None)}\n".encode() for link in links]):
        report = Report()
        for _ in verify_trail(lines, [], report, part=Part(first_sequence=1, last_sequence=3)):
            pass
        # Nobody has signed anything here: that is all that is wrong.
        assert {finding.place for finding in report.findings} == {*(f"line {n}" for n in (1, 2, 3)), "the anchor"}
        assert all("nobody known" in one.problem or "no checkpoint" in one.problem for one in report.findings)


async def test_without_its_key_personal_data_is_left_out_and_the_event_says_so(database: Database) -> None:
    """The act goes on; nothing personal is written in the clear instead."""
    personal = PersonalData(NoKeys())
    one = event("acme", resource=PERSON["name"], before=dict(PERSON), after=None)

    (await personal.sealer("acme")).protect(one, SOURCE)
    await write(database, one)

    (link,) = await links_of(database, "acme")
    assert json.loads(link.line)["unmapped"]["personal"] == "LEFT_OUT"
    assert "Jo Doe" not in link.line and link.sealed is None


class FickleKeys:
    """Vault goes away as soon as an act has begun, and a key in memory is destroyed."""

    def __init__(self, keys: TenantKeys) -> None:
        self._keys = keys
        self.is_away = False

    async def sealing_key(self, tenant_id: str) -> DataKey:
        if self.is_away:
            await asyncio.sleep(60)
        return await self._keys.sealing_key(tenant_id)

    async def open(self, tenant_id: str, sealed: bytes, *, context: bytes) -> bytes:
        return await self._keys.open(tenant_id, sealed, context=context)


async def test_nothing_waits_for_vault_once_an_act_has_begun(database: Database, keys: TenantKeys) -> None:
    """Others wait for what it has locked: the key is had before, and the event is sealed all the same."""
    fickle = FickleKeys(keys)
    personal = PersonalData(fickle)
    mutations = Mutations(database, b"f", witness_of(database, personal))
    request = tenants_pb2.CreateTenantRequest(tenant_id="acme")

    async def act(_: AsyncSession) -> Change[tenants_pb2.Tenant]:
        fickle.is_away = True
        made = tenants_pb2.Tenant(name="tenants/acme")
        return Change(resource=made.name, before=None, after=made, answer=made, parts=[(request, part)] * 3)

    part = Change(resource="tenants/acme", before=None, after=None, answer=tenants_pb2.Tenant())
    call = call_from("ipv4:198.51.100.1:1", rpc="tollhouse.admin.v1.TenantService.CreateTenant")
    async with asyncio.timeout(2):
        await mutations.run(call, request, tenants_pb2.Tenant, act)

    links = await links_of(database, "acme")
    assert [json.loads(link.line)["unmapped"]["personal"] for link in links] == ["SEALED"] * 4


@pytest.mark.parametrize(("what", "stays"), [("devices", False), ("apiKeys", False), ("projects", True)])
async def test_the_names_of_what_one_person_has_are_personal(database: Database, what: str, stays: bool) -> None:
    """Somebody's telephone, or his key, is called after him; a project is not."""
    name = f"tenants/acme/{what}/one"
    one = event("acme", resource=name, before=None, after={"name": name, "displayName": "Jo's"})

    (await PersonalData(NoKeys()).sealer("acme")).protect(one, SOURCE)

    assert ("Jo's" in json.dumps(one.after)) is stays


async def test_changes_say_where_they_come_from_behind_trusted_proxies(database: Database, keys: TenantKeys) -> None:
    """A header is believed from a trusted proxy alone; two acts on two tenants."""
    personal = PersonalData(keys)
    mutations, pages = Mutations(database, b"f", witness_of(database, personal)), PageTokens(b"p")
    authorizer = Authorizer(database, EpochWatch(database))
    tenants = TenantService(database, mutations, pages)
    principals = PrincipalService(database, mutations, pages, authorizer)
    create = "tollhouse.admin.v1.TenantService.CreateTenant"

    async def act(handler: Any, request: Message, call: Call) -> None:
        await handler(request, call)

    request = tenants_pb2.CreateTenantRequest(tenant_id="acme")
    await act(tenants.create_tenant, request, call_from("ipv4:10.0.0.7:1234", rpc=create, forwarded_for="192.0.2.9"))
    person = principals_pb2.Principal(kind=principals_pb2.Principal.KIND_USER, display_name="Jo Doe")
    await act(
        principals.create_principal,
        principals_pb2.CreatePrincipalRequest(parent="tenants/acme", principal_id="jo", principal=person),
        replace(call_from("ipv4:198.51.100.1:1", rpc=create, forwarded_for="192.0.2.9"), domain="acme"),
    )

    links = await links_of(database, "acme")
    values = [opened.values() for link in links if (opened := await personal.open(link)) is not None]
    assert [one["src_endpoint"]["ip"] for one in values] == ["192.0.2.9", "198.51.100.1"]
    assert [link.sealed_by for link in links] == ["platform", "acme"]
    assert values[1]["personal"]["after"] == {"displayName": "Jo Doe"}
    assert "Jo Doe" not in links[1].line
