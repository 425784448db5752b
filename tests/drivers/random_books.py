"""Records at random, of every kind and shape, written past the ledger: what reports add up, not how it came about."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.pricing.usage import Tokens, Usage

if TYPE_CHECKING:
    import asyncpg

_PLACES = (
    (("research", "vision"), "labels"),
    (("research",), "papers"),
    (("sales",), "crm"),
    (("research", "vision"), "crm"),
)
_SKUS = ("input_text", "output_text", "grounding_query")
_KINDS = (*[RecordKind.SETTLED] * 6, RecordKind.REFUSED, RecordKind.SUSPENSE, RecordKind.ADJUSTMENT)

_INSERT = """
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
VALUES ($1, $2, $3, $4, $2, $3, 1, $5, $6, $7, 'robot', 'generateContent', $8, $9, 'main', '{}', 1, 1, $10, $11, $12,
    $13, $13, $14, $15, 'SERVED', '')
"""
_SUSPEND = """
INSERT INTO suspense (tenant_id, attempt_id, suspended_at, worker_epoch, cause, requests, input_tokens, output_tokens,
    images, cost_nanos, resolved_at)
VALUES ($1, $2, $3, 1, 'LOST', 1, 0, 0, 0, $4, CASE WHEN $5 THEN now() END)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomRecord:
    """One record."""

    tenant_id: str
    attempt_id: UUID
    settled_at: datetime
    kind: RecordKind
    department_path: tuple[str, ...]
    project_id: str
    credential_id: str
    tier: str
    model: str
    tokens: tuple[int, int, int]
    cost_nanos: int
    usage: str
    lines: str

    @property
    def row(self) -> tuple[object, ...]:
        """Return the values of the insert, in its order."""
        return (
            *(self.tenant_id, self.attempt_id, self.settled_at, self.kind.value, list(self.department_path)),
            *(self.project_id, self.credential_id, self.tier, self.model, *self.tokens, self.cost_nanos),
            *(self.usage, self.lines),
        )


def random_record(
    chance: random.Random, tenant_id: str, start: datetime, end: datetime, *, dear_nanos: int = 2**62
) -> RandomRecord:
    """Make a record of some moment of a period; some lie exactly on a full hour, where days begin and end."""
    moment = start + timedelta(microseconds=chance.randrange((end - start) // timedelta(microseconds=1)))
    if chance.random() < 0.2:
        moment = moment.replace(minute=0, second=0, microsecond=0)
    path, project = chance.choice(_PLACES)
    kind = chance.choice(_KINDS)
    cost = (
        0
        if kind is RecordKind.REFUSED
        else chance.choice((0, chance.randrange(10**9), dear_nanos + chance.randrange(9)))
    )
    cost = -cost if kind is RecordKind.ADJUSTMENT else cost
    return RandomRecord(
        tenant_id=tenant_id,
        attempt_id=UUID(int=chance.getrandbits(128)),
        settled_at=max(start, moment),
        kind=kind,
        department_path=path,
        project_id=project,
        credential_id=chance.choice(("k1", "k2")),
        tier=chance.choice(("flash", "pro")),
        model=chance.choice(("gemini-a", "gemini-b")),
        tokens=(chance.randrange(10**6), chance.randrange(10**6), chance.randrange(3)),
        cost_nanos=cost,
        usage=_usage(chance),
        lines=_lines(chance, cost),
    )


def _usage(chance: random.Random) -> str:
    if chance.random() < 0.3:
        return "{}"
    counts = [Tokens(text=chance.randrange(1000), image=chance.randrange(1000)) for _ in range(4)]
    usage = Usage(prompt=counts[0], cached=counts[1], tool_use=counts[2], candidates=counts[3], thoughts_tokens=7)
    return json.dumps(asdict(usage))


def _lines(chance: random.Random, cost_nanos: int) -> str:
    """Return lines that explain all of the cost, a part of it, or nothing."""
    skus = chance.sample(_SKUS, chance.randrange(len(_SKUS) + 1))
    shares = [cost_nanos // 2 for _ in skus]
    if len(shares) > 1:
        shares[-1] = cost_nanos - sum(shares[:-1])
    lines = [
        {"sku": sku, "quantity": chance.randrange(5), "unit": "token", "nanos_per_million": 1, "cost_nanos": share}
        for sku, share in zip(skus, shares, strict=True)
    ]
    return json.dumps(lines)


async def write(
    connection: "asyncpg.Connection[asyncpg.Record]", chance: random.Random, records: Sequence[RandomRecord]
) -> None:
    """Insert records, and a row for each one in suspense, of which some are resolved."""
    await connection.executemany(_INSERT, [record.row for record in records])
    suspended = [record for record in records if record.kind is RecordKind.SUSPENSE]
    await connection.executemany(
        _SUSPEND,
        [(one.tenant_id, one.attempt_id, one.settled_at, one.cost_nanos, chance.random() < 0.5) for one in suspended],
    )


async def resolve_some(
    connection: "asyncpg.Connection[asyncpg.Record]",
    chance: random.Random,
    records: Sequence[RandomRecord],
    at: datetime,
) -> None:
    """Correct half of the calls in suspense at the moment `at`, as the ledger does: a record of its own, later."""
    for record in records:
        if record.kind is RecordKind.SUSPENSE and chance.random() < 0.5:
            correction = replace(record, kind=RecordKind.ADJUSTMENT, settled_at=at, cost_nanos=-1, lines="[]")
            await connection.execute(_INSERT, *correction.row)
            await connection.execute("UPDATE suspense SET resolved_at = now() WHERE attempt_id = $1", record.attempt_id)
