"""ReceiptService on the real ledger's records, signed by a real OpenBao, checked as the command line checks."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tollhouse.v1 import receipts_pb2 as pb
from tollhouse_admin.receipt_proofs import Finding, Verdict, Verifier, read_keys
from tollhouse_admin.rendering import as_json
from tollhouse_server.api.services.receipts_service import ReceiptService
from tollhouse_server.embedded.errors import EmbeddedStartFailed
from tollhouse_server.embedded.openbao_api import OpenBaoApi
from tollhouse_server.errors import InvalidRequest, ResourceNotFound, VaultDenied, VaultUnavailable
from tollhouse_server.ledger.terms import CallTerms, RecordKind
from tollhouse_server.names import PLATFORM
from tollhouse_server.pricing.price import Line
from tollhouse_server.pricing.skus import Unit
from tollhouse_server.vault.approle import AppRoleFiles
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.paths import RECEIPTS_KEY
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.books import Books, in_project, settlement
from tests.drivers.openbao import TestOpenBao
from tests.integration.api.callers import ROBOT, by

LABELS = "tenants/acme/departments/vision/projects/labels"
LINES = (
    Line(sku="input_text", quantity=9, unit=Unit.TOKEN, nanos_per_million=4_444_444, cost_nanos=40),
    Line(sku="output_text", quantity=11, unit=Unit.TOKEN, nanos_per_million=1_818_182, cost_nanos=20),
)


def vault_of(openbao: TestOpenBao, role: AppRoleFiles) -> VaultClient:
    return VaultClient(VaultAddress(url=openbao.endpoint.address, timeout_seconds=2), role)


@pytest.fixture
async def service(books: Books, openbao: TestOpenBao) -> AsyncIterator[ReceiptService]:
    """The service, over the books of tenant acme, with the gateway's role in Vault."""
    await books.add_tenant()
    vault = vault_of(openbao, openbao.endpoint.gateway)
    yield ReceiptService(books.database, SigningKey(vault, RECEIPTS_KEY, purpose=Purpose.RECEIPTS))
    await vault.close()


async def book(books: Books, **changes: object) -> CallTerms:
    """Book a call of 60 nano-dollars."""
    return await books.book(60, lines=LINES, **changes)  # type: ignore[arg-type]


async def receipt(service: ReceiptService, call_id: UUID, parent: str | None = None) -> pb.CallReceipt:
    request = pb.GetCallReceiptRequest(call_id=str(call_id), parent=parent)
    return await service.get_call_receipt(request, by())


async def verifier(service: ReceiptService, directory: Path) -> Verifier:
    """Read the keys as `receipts keys` writes them to a file."""
    file = directory / "keys.json"
    file.write_text(json.dumps(as_json(await service.get_receipt_keys(pb.GetReceiptKeysRequest(), by()))))
    return Verifier(read_keys(file))


def verify(judge: Verifier, receipt: pb.CallReceipt) -> Finding:
    return judge.verify(json.dumps(as_json(receipt)))


async def test_a_receipt_is_the_ledgers_record_signed_by_vault(
    books: Books, service: ReceiptService, tmp_path: Path
) -> None:
    """By the attempt's id or the request's; it is checked without either server."""
    call = await book(books)

    by_attempt = await receipt(service, call.attempt_id)
    by_request = await receipt(service, call.request_id)
    finding = verify(await verifier(service, tmp_path), by_attempt)

    document = json.loads(by_attempt.document)
    assert finding == Finding(verdict=Verdict.VALID, attempt_id=str(call.attempt_id), cost_nanos=60)
    assert by_request.document == by_attempt.document
    assert (document["project"], document["request_id"]) == (LABELS, str(call.request_id))
    assert [line["cost_nanos"] for line in document["booking"]["lines"]] == [40, 20]


async def test_the_receipt_of_a_resolved_call_holds_its_correction(
    books: Books, service: ReceiptService, tmp_path: Path
) -> None:
    """Before, it is of what is booked; after, of what it really cost."""
    judge = await verifier(service, tmp_path)
    reservation = await books.suspend(cost_nanos=100)
    before = await receipt(service, reservation.terms.attempt_id)
    await books.process.ledger.settle(reservation, settlement(60, lines=LINES))

    after = await receipt(service, reservation.terms.attempt_id)

    assert [verify(judge, one).cost_nanos for one in (before, after)] == [100, 60]
    assert [verify(judge, one).verdict for one in (before, after)] == [Verdict.VALID] * 2
    assert json.loads(before.document)["settled_at"] is None
    assert [one["cost_nanos"] for one in json.loads(after.document)["corrections"]] == [-40]


async def test_many_receipts_have_one_signature(books: Books, service: ReceiptService, tmp_path: Path) -> None:
    """In the order in which they were asked for, each once; the tenant's may have them of every project."""
    calls = [await book(books) for _ in range(4)]
    calls.append(await book(books, scope=in_project("crm", "sales")))
    ids = [str(call.attempt_id) for call in reversed(calls)]

    request = pb.SignReceiptsRequest(parent="tenants/acme", attempt_ids=[*ids, ids[0]])
    answer = await service.sign_receipts(request, by())

    judge = await verifier(service, tmp_path)
    assert [verify(judge, one).attempt_id for one in answer.receipts] == ids
    assert {one.signature.value for one in answer.receipts} == {answer.receipts[0].signature.value}
    assert {one.tree_size for one in answer.receipts} == {5}


async def test_receipts_that_one_may_not_have_are_like_those_that_never_were(
    books: Books, service: ReceiptService
) -> None:
    """Under way, refused, of another project, of another tenant, made up: missing, all of them."""
    await books.add_tenant("other")
    mine = await book(books)
    in_flight = (await books.reserve()).terms
    refused = await books.book(kind=RecordKind.REFUSED)
    sales = await book(books, scope=in_project("crm", "sales"))
    other = await book(books, scope=in_project("labels", "research", "vision", tenant="other"))
    absent = [one.attempt_id for one in (in_flight, refused, sales, other)] + [uuid4()]

    answer = await service.sign_receipts(pb.SignReceiptsRequest(attempt_ids=map(str, [*absent, mine.attempt_id])), by())
    errors = set()
    for one in absent:
        with pytest.raises(ResourceNotFound) as raised:
            await receipt(service, one)
        errors.add(str(raised.value).replace(str(one), "ID"))

    assert list(answer.missing_attempt_ids) == [str(one) for one in absent]
    assert [json.loads(one.document)["attempt_id"] for one in answer.receipts] == [str(mine.attempt_id)]
    assert errors == {f"{LABELS}/receipts/ID does not exist."}


async def test_nothing_to_sign_is_not_signed(service: ReceiptService) -> None:
    """An answer without receipts, and a request without ids."""
    nobody = str(uuid4())

    answer = await service.sign_receipts(pb.SignReceiptsRequest(attempt_ids=[nobody]), by())

    assert (list(answer.receipts), list(answer.missing_attempt_ids)) == ([], [nobody])
    for wrong in ([], ["no-uuid"]):
        with pytest.raises(InvalidRequest):
            await service.sign_receipts(pb.SignReceiptsRequest(attempt_ids=wrong), by())


async def test_keys_are_for_the_callers_own_tenant(service: ReceiptService) -> None:
    """An administrator of the platform has them for all."""
    administrator = replace(ROBOT, tenant_id=PLATFORM, project_id=None)

    own = await service.get_receipt_keys(pb.GetReceiptKeysRequest(), by())
    platform = await service.get_receipt_keys(pb.GetReceiptKeysRequest(), by(administrator))

    assert (own.tenant, platform.tenant) == ("tenants/acme", "")
    assert own.keys == platform.keys


# --- Vault ------------------------------------------------------------------------------------------------------------


def privileged(openbao: TestOpenBao) -> OpenBaoApi:
    keys = json.loads(openbao.endpoint.unseal_file.read_text())
    return OpenBaoApi(openbao.endpoint.address, token=keys["root_token"])


async def test_receipts_of_before_and_after_a_rotation_are_valid(
    books: Books, service: ReceiptService, openbao: TestOpenBao, tmp_path: Path
) -> None:
    """Public keys of all versions are published; those from before know only the older receipt."""
    call = await book(books)
    stale = await verifier(service, tmp_path)
    old = await receipt(service, call.attempt_id)
    async with privileged(openbao) as api:
        await api.put(f"transit/keys/{RECEIPTS_KEY}/rotate")
    new = await receipt(service, call.attempt_id)

    fresh = await verifier(service, tmp_path)

    assert new.signature.key_version == old.signature.key_version + 1
    assert [verify(fresh, one).verdict for one in (old, new)] == [Verdict.VALID, Verdict.VALID]
    assert [verify(stale, one).verdict for one in (old, new)] == [Verdict.VALID, Verdict.UNKNOWN_KEY]


async def test_without_vault_there_are_no_receipts_and_calls_go_on(
    books: Books, service: ReceiptService, openbao: TestOpenBao, tmp_path: Path
) -> None:
    """VAULT_UNAVAILABLE; the ledger books, public keys that were read before are told, and all is well afterwards."""
    call = await book(books)
    judge = await verifier(service, tmp_path)
    await openbao.server.seal()
    try:
        with pytest.raises(VaultUnavailable):
            await receipt(service, call.attempt_id)
        meanwhile = await book(books)
        keys = await service.get_receipt_keys(pb.GetReceiptKeysRequest(), by())
    finally:
        await openbao.server.unseal()

    assert keys.keys
    assert verify(judge, await receipt(service, meanwhile.attempt_id)).verdict is Verdict.VALID


async def test_only_the_gateway_may_sign_receipts(books: Books, openbao: TestOpenBao) -> None:
    """Who changes upstream keys cannot make a receipt."""
    await books.add_tenant()
    call = await book(books)
    vault = vault_of(openbao, openbao.endpoint.key_custodian)
    service = ReceiptService(books.database, SigningKey(vault, RECEIPTS_KEY, purpose=Purpose.RECEIPTS))

    with pytest.raises(VaultDenied):
        await receipt(service, call.attempt_id)

    await vault.close()


FORBIDDEN: dict[str, dict[str, Any]] = {
    f"transit/keys/{RECEIPTS_KEY}/rotate": {},
    f"transit/keys/{RECEIPTS_KEY}/config": {"deletion_allowed": True},
    f"transit/keys/{RECEIPTS_KEY}/trim": {"min_available_version": 1},
    f"transit/restore/{RECEIPTS_KEY}": {"backup": "AAAA"},
    "transit/keys/another": {"type": "ed25519"},
    "transit/sign/another": {"input": "AAAA"},
}


async def test_the_gateway_can_do_nothing_with_the_key_but_sign(openbao: TestOpenBao) -> None:
    """Neither make, rotate, change, trim, restore nor export a key."""
    role = openbao.endpoint.gateway
    ids = {"role_id": role.role_id_file.read_text().strip(), "secret_id": role.secret_id_file.read_text().strip()}
    async with OpenBaoApi(openbao.endpoint.address) as api:
        token = (await api.put("auth/approle/login", ids))["auth"]["client_token"]

    async with OpenBaoApi(openbao.endpoint.address, token=token) as api:
        await api.put(f"transit/sign/{RECEIPTS_KEY}", {"input": "AAAA"})
        attempts = [api.put(path, body) for path, body in FORBIDDEN.items()]
        reads = ("export/signing-key", "backup", "export/public-key")
        attempts += [api.get(f"transit/{read}/{RECEIPTS_KEY}") for read in reads]
        for attempt in attempts:
            with pytest.raises(EmbeddedStartFailed, match="permission denied"):
                await attempt
