"""Usage records as they were booked, and the receipt that the records of one attempt add up to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.names import ProjectName
from tollhouse_server.pricing.usage import TOKEN_KINDS, Tokens, Usage

_BY_MODALITY = ("prompt", "cached", "tool_use", "candidates")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedLine:
    """One priced line of a record."""

    sku: str
    quantity: int
    unit: str
    nanos_per_million: int
    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One attempt as it was booked. The numbers of an ADJUSTMENT are differences and may be negative.

    `department_path` is the tree at the time of the booking, from the root to the department that was charged. `usage`
    is None where none was reported.
    """

    tenant_id: str
    attempt_id: UUID
    settled_at: datetime
    kind: RecordKind
    request_id: UUID
    dispatched_at: datetime
    department_path: tuple[str, ...]
    project_id: str
    credential_id: str
    method: str
    tier: str
    model: str
    account_id: str
    labels: Mapping[str, str]
    price_version: int
    input_tokens: int
    output_tokens: int
    images: int
    cost_nanos: int
    usage: Usage | None
    lines: tuple[ChargedLine, ...]
    outcome: str
    correlation_id: str = ""

    @property
    def project_name(self) -> str:
        """Return the resource name of the project that was charged."""
        return str(ProjectName(self.tenant_id, self.department_path[-1], self.project_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one attempt came to, corrections included. `settled_at` is None while its outcome is unknown."""

    attempt_id: UUID
    request_id: UUID
    price_version: int
    project_name: str
    cost_nanos: int
    lines: tuple[ChargedLine, ...]
    settled_at: datetime | None
    correlation_id: str


def receipt_of(records: Sequence[UsageRecord]) -> Receipt:
    """Return the receipt of an attempt from all of its records, the oldest first."""
    first, last = records[0], records[-1]
    lines = next((record.lines for record in reversed(records) if record.lines), ())
    return Receipt(
        attempt_id=first.attempt_id,
        request_id=first.request_id,
        price_version=first.price_version,
        project_name=first.project_name,
        cost_nanos=sum(record.cost_nanos for record in records),
        lines=lines,
        settled_at=None if last.kind is RecordKind.SUSPENSE else last.settled_at,
        correlation_id=first.correlation_id,
    )


def usage_of(document: Mapping[str, Any]) -> Usage | None:
    """Return the usage that a record keeps as JSON, None where it keeps none; unknown members are left out."""
    if not document:
        return None
    return Usage(
        **{name: _tokens(document.get(name, {})) for name in _BY_MODALITY},
        thoughts_tokens=document.get("thoughts_tokens", 0),
        images=document.get("images", 0),
        grounding_queries=document.get("grounding_queries", 0),
        service_tier=document.get("service_tier"),
        flags=tuple(document.get("flags", ())),
    )


def lines_of(document: Sequence[Mapping[str, Any]]) -> tuple[ChargedLine, ...]:
    """Return the priced lines that a record keeps as JSON."""
    names = tuple(field.name for field in fields(ChargedLine))
    return tuple(ChargedLine(**{name: line[name] for name in names}) for line in document)


def _tokens(counts: Mapping[str, int]) -> Tokens:
    return Tokens(**{name: counts.get(name, 0) for name in TOKEN_KINDS})
