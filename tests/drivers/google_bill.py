"""Google's bill for what a ledger booked: the Cloud Billing export, made call by call, with mistakes planted in it."""

import copy
import csv
import io
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    import asyncpg

PACIFIC = ZoneInfo("America/Los_Angeles")
NANOS = 10**9

Row = dict[str, Any]
"""A line of the export, nested as in BigQuery."""

# Nano-dollars a token, and what Google calls the SKU; as in the price book that Tollhouse comes with.
PRICES = {
    ("gemini-3.8-flash", "input_text"): (750, "Generate content input token count gemini 3.8 flash text"),
    ("gemini-3.8-flash", "cached_text"): (75, "Generate content cached input token count gemini 3.8 flash text"),
    ("gemini-3.8-flash", "output_text"): (3750, "Generate content output token count gemini 3.8 flash text"),
    ("gemini-4-argon", "input_text"): (2000, "Generate_content input token count gemini 4 argon text"),
    ("gemini-4-argon", "output_text"): (10000, "Generate content output token count gemini 4 argon text"),
}

_RECORD = """
INSERT INTO usage_record (tenant_id, attempt_id, settled_at, kind, request_id, dispatched_at, worker_epoch,
    department_path, project_id, credential_id, principal_id, method, tier, model, account_id, labels, price_version,
    requests, input_tokens, output_tokens, images, cost_nanos, ceiling_nanos, usage, lines, outcome, response_id)
VALUES ($1, $2, $3, $4, $2, $3, 1, '{research}', 'labels', 'k1', 'robot', 'generateContent', 'flash', $5, $6, '{}', 1,
    1, 0, 0, 0, $7, $7, '{}', $8, 'SERVED', '')
"""
_ACCOUNT = """
INSERT INTO account (account_id, kind, project, base_url_key) VALUES ($1, 'gemini_api', $2, 'gemini_api')
"""
_SUSPEND = """
INSERT INTO suspense (tenant_id, attempt_id, suspended_at, worker_epoch, cause, requests, input_tokens, output_tokens,
    images, cost_nanos) VALUES ($1, $2, $3, 1, 'LOST', 1, 0, 0, 0, $4)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledCall:
    """A call that Google bills. `tokens` is by SKU; thinking is billed as text that was put out."""

    tenant: str
    at: datetime
    account: str
    model: str
    tokens: dict[str, int]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the priced lines, as the ledger books them."""
        return [
            {
                "sku": sku,
                "quantity": tokens,
                "unit": "token",
                "nanos_per_million": (price := PRICES[self.model, _billed_as(sku)][0]) * 1_000_000,
                "cost_nanos": price * tokens,
            }
            for sku, tokens in self.tokens.items()
        ]

    @property
    def cost_nanos(self) -> int:
        """Return what the call costs."""
        return sum(line["cost_nanos"] for line in self.lines)


def _billed_as(sku: str) -> str:
    return "output_text" if sku == "thoughts" else sku


def some_calls(
    chance: random.Random,
    count: int,
    *,
    start: datetime,
    days: int,
    accounts: Sequence[str] = ("alpha", "beta"),
    tenants: Sequence[str] = ("acme", "other"),
) -> list[BilledCall]:
    """Make calls of tenants, all within the days, at any hour."""
    return [
        BilledCall(
            tenant=chance.choice(tenants),
            at=start + timedelta(days=n % days, seconds=chance.randrange(86_400)),
            account=accounts[n // days % len(accounts)],
            model=(model := chance.choice(("gemini-3.8-flash", "gemini-4-argon"))),
            tokens={
                "input_text": chance.randrange(50_000, 900_000),
                **({"cached_text": chance.randrange(1, 90_000)} if model == "gemini-3.8-flash" else {}),
                "output_text": chance.randrange(10_000, 90_000),
                "thoughts": chance.randrange(1, 90_000),
            },
        )
        for n in range(count)
    ]


def statements(calls: Sequence[BilledCall]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return what writes the calls as records, past the ledger, with the accounts that they went through."""
    accounts = sorted({call.account for call in calls})
    return [
        *((_ACCOUNT, (account, f"google-{account}")) for account in accounts),
        *((_RECORD, _values(call, UUID(int=random.getrandbits(128)))) for call in calls),
    ]


def _values(call: BilledCall, attempt: UUID) -> tuple[Any, ...]:
    lines = json.dumps(call.lines)
    return (call.tenant, attempt, call.at, "SETTLED", call.model, call.account, call.cost_nanos, lines)


async def book(connection: "asyncpg.Connection[asyncpg.Record]", calls: Sequence[BilledCall]) -> None:
    """Write the calls as records, past the ledger."""
    for sql, values in statements(calls):
        await connection.execute(sql, *values)


async def suspend(connection: "asyncpg.Connection[asyncpg.Record]", call: BilledCall, booked_nanos: int) -> None:
    """Book a call whose outcome is unknown at what was expected of it."""
    attempt = UUID(int=random.getrandbits(128))
    values = (call.tenant, attempt, call.at, "SUSPENSE", call.model, call.account, booked_nanos, "[]")
    await connection.execute(_RECORD, *values)
    await connection.execute(_SUSPEND, call.tenant, attempt, call.at, booked_nanos)


def google_bill(calls: Iterable[BilledCall], *, lines_a_day: int = 2) -> list[Row]:
    """Return the export of the calls: for each project, SKU and part of a Pacific day one line."""
    sums: dict[tuple[datetime, str, str, str], int] = {}
    for call in calls:
        at = call.at.astimezone(PACIFIC)
        part = at.replace(hour=at.hour * lines_a_day // 24 * (24 // lines_a_day), minute=0, second=0, microsecond=0)
        for sku, tokens in call.tokens.items():
            key = part, call.account, call.model, _billed_as(sku)
            sums[key] = sums.get(key, 0) + tokens
    return [
        bill_line(start, account, model, sku, tokens)
        for (start, account, model, sku), tokens in sorted(sums.items())
        if tokens
    ]


def bill_line(start: datetime, account: str, model: str, sku: str, tokens: int) -> Row:
    """Return one line at list price."""
    price, description = PRICES[model, sku]
    start = start.astimezone(UTC)
    return {
        "billing_account_id": "01D4EE-079462-DFD6EC",
        "service": {"id": "AEFD-7695-64FA", "description": "Gemini API"},
        "sku": {"id": f"{abs(hash_of(description)):012X}", "description": description},
        "usage_start_time": f"{start:%Y-%m-%d %H:%M:%S} UTC",
        "usage_end_time": f"{start + timedelta(hours=1):%Y-%m-%d %H:%M:%S} UTC",
        "project": {"id": f"google-{account}", "number": "123456789012", "labels": []},
        "labels": [],
        "location": {"location": "global"},
        "export_time": f"{start + timedelta(hours=9):%Y-%m-%d %H:%M:%S} UTC",
        "cost": float(Decimal(price * tokens) / NANOS),
        "currency": "USD",
        "currency_conversion_rate": 1.0,
        "usage": {"amount": float(tokens), "unit": "count", "amount_in_pricing_units": float(tokens)},
        "credits": [],
        "invoice": {"month": f"{start.astimezone(PACIFIC):%Y%m}"},
        "cost_type": "regular",
    }


def hash_of(text: str) -> int:
    """Return a number for a text, the same in every process."""
    return int.from_bytes(text.encode()[-12:], "big") % 16**12


def as_jsonl(rows: Iterable[Row]) -> str:
    """Return rows as BigQuery writes JSON."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def as_csv(rows: Sequence[Row]) -> str:
    """Return rows as a flattened CSV, lists as JSON."""
    written = io.StringIO()
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(written, fieldnames=list(flat[0]))
    writer.writeheader()
    writer.writerows(flat)
    return written.getvalue()


def _flat(row: Row) -> dict[str, str]:
    cells: dict[str, str] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            cells |= {f"{name}.{field}": _cell(one) for field, one in value.items()}
        else:
            cells[name] = _cell(value)
    return cells


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def changed(row: Row, **values: Any) -> Row:
    """Return a copy of a line with other values."""
    return copy.deepcopy(row) | values


def with_other_price(row: Row, factor: int) -> Row:
    """Return a line for which Google charges a multiple of the list price."""
    return changed(row, cost=float(Decimal(str(row["cost"])) * factor))


def exported_later(row: Row, hours: int = 5) -> Row:
    """Return a line that was exported once more, later."""
    at = datetime.fromisoformat(row["export_time"].removesuffix(" UTC")) + timedelta(hours=hours)
    return changed(row, export_time=f"{at:%Y-%m-%d %H:%M:%S} UTC")


def moved(row: Row, *, hours: int) -> Row:
    """Return a line that Google has put at another time."""
    times = {
        name: f"{datetime.fromisoformat(row[name].removesuffix(' UTC')) + timedelta(hours=hours):%Y-%m-%d %H:%M:%S} UTC"
        for name in ("usage_start_time", "usage_end_time")
    }
    return changed(row, **times)


def with_credit(row: Row, dollars: str, kind: str = "PROMOTION") -> Row:
    """Return a line with a credit."""
    return changed(row, credits=[{"id": "c1", "full_name": "Welcome", "type": kind, "amount": float(dollars)}])


def cost_nanos(row: Row) -> int:
    """Return what a line costs."""
    return int(Decimal(str(row["cost"])) * NANOS)


def find(rows: Iterable[Row], wanted: Callable[[Row], bool]) -> int:
    """Return the place of the first line that is wanted."""
    return next(place for place, row in enumerate(rows) if wanted(row))
