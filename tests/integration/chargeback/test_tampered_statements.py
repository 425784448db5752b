"""A sealed statement in which anything was changed, member by member: `report verify` says so, and never breaks off."""

import copy
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tollhouse.admin.v1 import chargeback_pb2 as pb
from tollhouse_admin.rendering import as_json
from tollhouse_admin.statement_proofs import StatementVerifier, read_statement, read_statement_keys
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.chargeback.closing import Step, close, preview
from tollhouse_server.names import PeriodName
from tollhouse_server.vault.signing import Proof, Purpose, SigningKey

from tests.drivers.books import Books
from tests.drivers.receipts import KEY, KeyInMemory
from tests.integration.api.callers import by
from tests.integration.chargeback.test_close import ANN, closed, exported, roll_up, service

__all__ = ["service"]

_INSTEAD: tuple[Any, ...] = (None, "x", "", -1, 0, 7, 10**30, [], {}, [None], {"a": 1}, "\ud800")


async def test_whatever_is_changed_in_a_sealed_statement_is_found(
    books: Books, service: ChargebackService, tmp_path: Path
) -> None:
    """Each member is replaced by something else or left out, those of the seal included."""
    await closed(books, service)
    keys = as_json(await service.get_statement_keys(pb.GetStatementKeysRequest(), by(ANN)))
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    (tmp_path / "statement.json").write_bytes(await exported(service))
    found, known = read_statement(tmp_path / "statement.json"), read_statement_keys(tmp_path / "keys.json")
    assert all(check.is_right for check in StatementVerifier(found, known).checks())

    undetected = [
        path
        for path, changed in tampered(found)
        if all(check.is_right for check in StatementVerifier(changed, known).checks())
    ]

    assert undetected == []


def tampered(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield the document with each of its members replaced and left out."""
    for path in paths(document):
        if path == ("statement",):
            continue
        for instead in (*_INSTEAD, copy):
            changed = copy.deepcopy(document)
            inner = changed
            for step in path[:-1]:
                inner = inner[step]
            if instead is copy:
                del inner[path[-1]]
            elif type(inner[path[-1]]) is type(instead) and inner[path[-1]] == instead:
                continue
            else:
                inner[path[-1]] = instead
            if "seal" in changed:
                yield f"{path} = {instead!r}", changed


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every member of a document."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*above, step)
        yield from paths(inner, (*above, step))


class _DigestsAlone:
    """A key that signs as it did before the moment and the closer were signed, too."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def sign(self, documents: Sequence[bytes]) -> Sequence[Proof]:
        return await self._key.sign([document.partition(b"\n")[0] for document in documents])


async def test_a_month_that_was_closed_before_its_closer_was_signed_is_still_right(
    books: Books, service: ChargebackService, tmp_path: Path
) -> None:
    """And it is said what is not signed."""
    key = SigningKey(KeyInMemory(), KEY, purpose=Purpose.STATEMENTS)
    await roll_up(books)
    step = Step(name=PeriodName("acme", "2026-05"), actor="users/ann", watermark=datetime.now(UTC))
    async with books.database.transaction() as session:
        await preview(session, step)
    async with books.database.transaction() as session:
        await close(session, step, _DigestsAlone(key))
    (tmp_path / "keys.json").write_text(json.dumps(as_json(pb.StatementKeys(keys=await _keys(key)))))
    (tmp_path / "statement.json").write_bytes(await exported(service))

    found, known = read_statement(tmp_path / "statement.json"), read_statement_keys(tmp_path / "keys.json")
    checks = {check.what: check for check in StatementVerifier(found, known).checks()}

    assert all(check.is_right for check in checks.values())
    assert "of the digest alone" in checks["signature"].detail


async def _keys(key: SigningKey) -> list[pb.StatementKey]:
    versions = await key.public_keys()
    return [pb.StatementKey(key=KEY, version=version, public_key=versions[version]) for version in versions]
