"""What is signed as a call's receipt: its records as one canonical JSON text, described in receipts.proto."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.names import AccountName, TenantName
from tollhouse_server.pricing.usage import Usage
from tollhouse_server.reporting.records import UsageRecord

VERSION: Final = "tollhouse.receipt/1"
"""The first member of every receipt's meaning: a text of another version is to be read by other rules."""


def receipt_document(records: Sequence[UsageRecord]) -> str | None:
    """Return the receipt of an attempt from all of its records, the oldest first.

    None where there is nothing to be receipted: it was refused, or its booking was dropped after an export, and what is
    left are corrections of it.
    """
    booking = next((record for record in records if record.kind is not RecordKind.ADJUSTMENT), None)
    if booking is None or booking.kind is RecordKind.REFUSED:
        return None
    corrections = [record for record in records if record.kind is RecordKind.ADJUSTMENT]
    last = corrections[-1] if corrections else booking
    document = {
        "version": VERSION,
        **_call(booking),
        "settled_at": None if last.kind is RecordKind.SUSPENSE else _moment(last.settled_at),
        "cost_nanos": sum(record.cost_nanos for record in records),
        "booking": _entry(booking),
        "corrections": [_entry(record) for record in corrections],
    }
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def _call(record: UsageRecord) -> Mapping[str, Any]:
    return {
        "tenant": str(TenantName(record.tenant_id)),
        "project": record.project_name,
        "department_path": record.department_path,
        "attempt_id": str(record.attempt_id),
        "request_id": str(record.request_id),
        "credential": record.credential_id,
        "method": record.method,
        "tier": record.tier,
        "model": record.model,
        "account": str(AccountName(record.account_id)),
        "labels": dict(record.labels),
        "price_version": record.price_version,
        "started_at": _moment(record.dispatched_at),
    }


def _entry(record: UsageRecord) -> Mapping[str, Any]:
    return {
        "kind": record.kind.value,
        "booked_at": _moment(record.settled_at),
        "outcome": record.outcome,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "images": record.images,
        "cost_nanos": record.cost_nanos,
        "usage": None if record.usage is None else _counts(record.usage),
        "lines": [
            {
                "sku": line.sku,
                "quantity": line.quantity,
                "unit": line.unit,
                "nanos_per_million_units": line.nanos_per_million,
                "cost_nanos": line.cost_nanos,
            }
            for line in record.lines
        ],
    }


def _counts(usage: Usage) -> Mapping[str, Any]:
    """Return what was reported, without what is zero or empty."""
    document = asdict(usage)
    for name, value in document.items():
        if isinstance(value, dict):
            document[name] = _without_nothing(value)
    return _without_nothing(document)


def _without_nothing(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value}


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
