"""A month of a company's calls in the shapes of recorded traffic, on every model that has a price; and a plain scan.

Nothing of the server's sums is used in the scan: it reads the records one by one and adds them up as decimals.
"""

import gzip
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
from tollhouse_server.errors import ModelUnpriced, UsageMissing
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.pricing.usage import Usage, from_generate_body

RECORDED = Path(__file__).parents[1] / "recorded" / "gemini_traffic.jsonl.gz"
MAY = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAYS = 30
_BATCH = 50_000
_COLUMNS = (
    *("tenant_id", "attempt_id", "settled_at", "kind", "request_id", "dispatched_at", "worker_epoch"),
    *("department_path", "project_id", "credential_id", "principal_id", "method", "tier", "model", "account_id"),
    *("labels", "price_version", "requests", "input_tokens", "output_tokens", "images", "cost_nanos"),
    *("ceiling_nanos", "usage", "lines", "outcome", "response_id"),
)


@cache
def recorded_usages() -> Sequence[Usage]:
    """Return what every recorded answer with a report of its usage has used."""
    usages = []
    with gzip.open(RECORDED, "rt") as exchanges:
        for text in exchanges:
            response = json.loads(text)["response"]
            if isinstance(response, dict):
                with suppress(UsageMissing):
                    usages.append(from_generate_body(response))
    return tuple(usages)


@dataclass(frozen=True, slots=True)
class Shape:
    """One recorded use of one model with what it costs, as a record keeps it."""

    model: str
    numbers: tuple[int, int, int, int]
    usage: str
    lines: str


@cache
def shapes(at: datetime = MAY) -> Sequence[Shape]:
    """Return every recorded use on every model that has a price for it, on the standard and the cheaper tiers."""
    book = PriceBook(1, packaged_prices().lists)
    models = sorted({one.model for one in book.lists()})
    found = []
    for model in models:
        for number, usage in enumerate(recorded_usages()):
            with suppress(ModelUnpriced):
                prices = book.terms(model, max(at, book.history(model)[0].terms.effective_from))
                tier = "flex" if number % 5 == 0 and "flex" in prices.terms.tier_permille else None
                priced = price(prices, usage, tier)
                numbers = (usage.input_tokens, usage.output_tokens, usage.images, priced.cost_nanos)
                lines = json.dumps([asdict(line) for line in priced.lines])
                found.append(Shape(model, numbers, json.dumps(asdict(usage)), lines))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """A tenant with a tree of departments, two projects each."""

    tenant: str
    time_zone: str = "UTC"
    departments: int = 8

    def path(self, number: int) -> tuple[str, ...]:
        """Return the way to a department: every third one is at the top."""
        return (f"d{number}",) if number % 3 == 0 else (*self.path((number - 1) // 2), f"d{number}")

    async def found(self, connection: "asyncpg.Connection[Any]") -> None:
        """Write the tenant and its tree."""
        await connection.execute(
            "INSERT INTO tenant (tenant_id, time_zone) VALUES ($1, $2)", self.tenant, self.time_zone
        )
        for number in range(self.departments):
            path = self.path(number)
            await connection.execute(
                "INSERT INTO department (tenant_id, department_id, parent_id, path, display_name)"
                " VALUES ($1, $2, $3, $4::text::ltree, $5)",
                *(self.tenant, path[-1], path[-2] if len(path) > 1 else None, ".".join(path), f"No. {number}"),
            )
            for project in (f"p{number}-a", f"p{number}-b"):
                await connection.execute(
                    "INSERT INTO project (tenant_id, project_id, department_id) VALUES ($1, $2, $3)",
                    *(self.tenant, project, path[-1]),
                )

    async def call(
        self, connection: "asyncpg.Connection[Any]", known: Sequence[Shape], *, calls: int, seed: int = 1
    ) -> None:
        """Write a month of calls, some refused, some corrected."""
        chance = random.Random(seed)
        paths = [self.path(number) for number in range(self.departments)]
        for first in range(0, calls, _BATCH):
            rows = [self._row(chance, known, paths) for _ in range(min(_BATCH, calls - first))]
            await connection.copy_records_to_table("usage_record", records=rows, columns=list(_COLUMNS))

    def _row(self, chance: random.Random, known: Sequence[Shape], paths: list[tuple[str, ...]]) -> tuple[object, ...]:
        shape, path = chance.choice(known), chance.choice(paths)
        *tokens, cost = shape.numbers
        lines, labels = shape.lines, "{}"
        kind = chance.choices(("SETTLED", "REFUSED", "ADJUSTMENT"), (96, 2, 2))[0]
        if kind == "REFUSED":
            tokens, cost, lines = [0, 0, 0], 0, "[]"
        elif kind == "ADJUSTMENT":
            tokens, cost, lines = [-value for value in tokens], -cost, "[]"
        if chance.random() < 0.4:
            labels = json.dumps({"feature": f"f{chance.randrange(6)}", "stage": chance.choice(("test", "live"))})
        attempt = UUID(int=chance.getrandbits(128))
        at = MAY + timedelta(microseconds=chance.randrange(DAYS * 86_400 * 10**6))
        return (
            *(self.tenant, attempt, at, kind, attempt, at, 1, path, f"p{path[-1][1:]}-{chance.choice('ab')}"),
            *(f"k{path[-1]}", "robot", "generateContent", chance.choice(("flash", "pro")), shape.model, "main"),
            *(labels, 1, 1, *tokens, cost, abs(cost), shape.usage, lines, "SERVED", ""),
        )


@dataclass(slots=True)
class Scan:
    """What a plain scan has found: for each scope (a department's id, empty for the tenant), dimension and key."""

    costs: dict[tuple[str, str, str], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    calls: dict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    lines: dict[tuple[str, ...], Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def add(self, record: Any, zone: ZoneInfo) -> None:
        """Add one record to every scope that it is of."""
        if record["kind"] == "REFUSED":
            return
        cost, count = Decimal(record["cost"]), int(record["kind"] in ("SETTLED", "SUSPENSE"))
        path, labels = record["department_path"], json.loads(record["labels"])
        keys = [
            *(("total", ""), ("department", path[-1]), ("project", record["project_id"]), ("tier", record["tier"])),
            *(("model", record["model"]), ("day", str(record["settled_at"].astimezone(zone).date()))),
            *(("label", f"{name}={value}") for name, value in labels.items()),
        ]
        for scope in ("", *path):
            for dimension, key in keys:
                self.costs[scope, dimension, key] += cost
                self.calls[scope, dimension, key] += count
            for sku, nanos in _itemised(cost, json.loads(record["lines"])):
                self.lines[scope, path[-1], record["project_id"], record["tier"], record["model"], sku] += nanos

    def of(self, scope: str, dimension: str) -> dict[str, tuple[int, int]]:
        """Return cost and calls by the keys of a dimension."""
        return {
            key: (int(cost), self.calls[scope, dimension, key])
            for (of, by, key), cost in self.costs.items()
            if (of, by) == (scope, dimension)
        }


def _itemised(cost: Decimal, lines: list[dict[str, Any]]) -> Iterator[tuple[str, Decimal]]:
    rest = cost
    for line in lines:
        nanos = Decimal(line["cost_nanos"])
        rest -= nanos
        yield line["sku"], nanos
    if rest:
        yield "unitemised", rest


async def scan(connection: "asyncpg.Connection[Any]", tenant: str, time_zone: str) -> Scan:
    """Read every record of a tenant and add it up."""
    found, zone = Scan(), ZoneInfo(time_zone)
    async for record in _records(connection, tenant):
        found.add(record, zone)
    return found


async def _records(connection: "asyncpg.Connection[Any]", tenant: str) -> AsyncIterator[Any]:
    query = """
SELECT settled_at, kind, department_path, project_id, tier, model, labels::text AS labels, lines::text AS lines,
    cost_nanos::text AS cost FROM usage_record WHERE tenant_id = $1
"""
    async with connection.transaction():
        async for record in connection.cursor(query, tenant, prefetch=5000):
            yield record
