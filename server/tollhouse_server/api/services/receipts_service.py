"""ReceiptService: what the ledger keeps of calls, signed, and the keys to check it with."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from tollhouse.v1 import receipts_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import ResourceNotFound
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import PLATFORM, Scope, TenantName, invalid, parse_scope
from tollhouse_server.reporting import store
from tollhouse_server.reporting.receipts import receipt_document
from tollhouse_server.reporting.records import UsageRecord
from tollhouse_server.vault.signing import ALGORITHM, Proof, SigningKey

# Documents written without a look at what else the worker has to do: about two milliseconds.
_DOCUMENTS_AT_A_TIME: Final = 50


class ReceiptService:
    """Signs receipts of a scope's calls; changes nothing."""

    def __init__(self, database: Database, key: SigningKey) -> None:
        self._database = database
        self._key = key

    async def get_call_receipt(self, request: pb.GetCallReceiptRequest, call: Call) -> pb.CallReceipt:
        scope = _scope(request, call)
        async with self._database.within(call.domain) as session:
            records = await store.find_attempt(session, scope, _uuid(request.call_id, "call_id"))
        document = receipt_document(records)
        if document is None:
            # One answer for a call that never was, is under way, or is of another scope.
            raise ResourceNotFound(name=f"{scope}/receipts/{request.call_id}")
        (receipt,) = await self._signed([document])
        return receipt

    async def sign_receipts(self, request: pb.SignReceiptsRequest, call: Call) -> pb.SignReceiptsResponse:
        scope = _scope(request, call)
        wanted = list(dict.fromkeys(_uuid(text, "attempt_ids") for text in request.attempt_ids))
        if not wanted:
            raise invalid("attempt_ids", "must name an attempt")
        async with self._database.within(call.domain) as session:
            found = await store.find_attempts(session, scope, wanted)
        documents = {one: text async for one, text in _documents(wanted, found)}
        return pb.SignReceiptsResponse(
            receipts=await self._signed(list(documents.values())) if documents else (),
            missing_attempt_ids=[str(one) for one in wanted if one not in documents],
        )

    async def get_receipt_keys(self, request: pb.GetReceiptKeysRequest, call: Call) -> pb.ReceiptKeys:
        versions = await self._key.public_keys()
        return pb.ReceiptKeys(
            tenant=_own_tenant(call.principal),
            keys=[
                pb.ReceiptKey(key=self._key.name, version=version, algorithm=ALGORITHM, public_key=versions[version])
                for version in sorted(versions)
            ],
        )

    async def _signed(self, documents: Sequence[str]) -> list[pb.CallReceipt]:
        proofs = await self._key.sign([document.encode() for document in documents])
        return [_receipt(document, proof) for document, proof in zip(documents, proofs, strict=True)]


async def _documents(
    wanted: Sequence[UUID], found: Mapping[UUID, Sequence[UsageRecord]]
) -> AsyncIterator[tuple[UUID, str]]:
    """Yield the receipts of the attempts that have one, and let others have the worker between them."""
    for count, attempt_id in enumerate(wanted, start=1):
        document = receipt_document(found.get(attempt_id, ()))
        if document is not None:
            yield attempt_id, document
        if count % _DOCUMENTS_AT_A_TIME == 0:
            await asyncio.sleep(0)


def _receipt(document: str, proof: Proof) -> pb.CallReceipt:
    return pb.CallReceipt(
        document=document,
        tree_size=proof.tree_size,
        leaf_index=proof.leaf_index,
        path=proof.path,
        signature=pb.ReceiptSignature(
            algorithm=ALGORITHM,
            key=proof.signature.key,
            key_version=proof.signature.key_version,
            value=proof.signature.value,
        ),
    )


def _scope(request: pb.GetCallReceiptRequest | pb.SignReceiptsRequest, call: Call) -> Scope:
    return parse_scope(request.parent or call.principal.home, "parent")


def _own_tenant(principal: Principal) -> str:
    """Return the tenant whose receipts a caller may take for his own: all of them where he is of the platform."""
    return "" if principal.tenant_id == PLATFORM else str(TenantName(principal.tenant_id))


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise invalid(field, "must be a UUID") from None
