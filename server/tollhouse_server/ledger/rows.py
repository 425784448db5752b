"""Attempts and usage records as the JSON in which they travel to PostgreSQL, and attempts back again.

One JSON text for all rows of a tick: encoding an array for each column costs twice as much on this side.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from tollhouse_server.ledger.terms import (
    EVERYTHING,
    Amounts,
    CallTerms,
    CounterKey,
    Hold,
    Metric,
    RecordKind,
    Reservation,
    Scope,
    Settlement,
    Shares,
)

if TYPE_CHECKING:
    import asyncpg


class Booking(NamedTuple):
    """One usage record to append, and the suspense row that goes with it when `settlement.kind` is SUSPENSE."""

    reservation: Reservation
    settlement: Settlement

    @property
    def is_suspense(self) -> bool:
        """Tell whether the outcome is unknown."""
        return self.settlement.kind is RecordKind.SUSPENSE


def attempts_json(reservations: Sequence[Reservation]) -> str:
    """Return the rows of attempts; those that claim a request id carry its fingerprint."""
    return orjson.dumps([_attempt_row(reservation) for reservation in reservations]).decode()


def grown_json(reservations: Sequence[Reservation]) -> str:
    """Return what a top-up changes of attempts in flight."""
    return orjson.dumps([_grown_row(reservation) for reservation in reservations]).decode()


def records_json(bookings: Sequence[Booking]) -> str:
    """Return the rows of usage records."""
    return orjson.dumps([_record_row(booking) for booking in bookings]).decode()


def suspense_json(bookings: Sequence[Booking]) -> str:
    """Return the rows of suspense."""
    return orjson.dumps([_suspense_row(booking) for booking in bookings]).decode()


def _attempt_row(reservation: Reservation) -> dict[str, Any]:
    terms = reservation.terms
    row = {
        "tenant_id": terms.scope.tenant_id,
        "attempt_id": terms.attempt_id,
        "request_id": terms.request_id,
        "worker_epoch": reservation.worker_epoch,
        "terms": _terms(reservation),
        "holds": orjson.Fragment(reservation.holds_text),
    }
    if terms.first:
        row["fingerprint"] = "\\x" + terms.fingerprint.hex()
    return row


def _grown_row(reservation: Reservation) -> dict[str, Any]:
    return {
        "tenant_id": reservation.terms.scope.tenant_id,
        "attempt_id": reservation.terms.attempt_id,
        "top_ups": reservation.top_ups,
        "terms": _terms(reservation),
        "holds": orjson.Fragment(reservation.holds_text),
    }


def _terms(reservation: Reservation) -> dict[str, Any]:
    terms, scope = reservation.terms, reservation.terms.scope
    row = {
        "department_path": scope.department_path,
        "project_id": scope.project_id,
        "credential_id": scope.credential_id,
        "principal_id": scope.principal_id,
        "method": terms.method,
        "tier": terms.tier,
        "model": terms.model,
        "account_id": terms.account_id,
        "labels": terms.labels,
        "price_version": terms.price_version,
        "ceiling": tuple(terms.ceiling),
    }
    if reservation.shares is not EVERYTHING:
        row["shares"] = tuple(reservation.shares)
    if reservation.max_output_tokens is not None:
        row |= {"max_output_tokens": reservation.max_output_tokens, "clamped_by": reservation.clamped_by}
    return row


def holds_json(holds: Sequence[Hold]) -> str:
    """Return holds as attempts and records keep them."""
    return f"[{','.join([hold_prefix(one.key, one.metric) + f'{one.amount},{one.expected}]' for one in holds])}]"


def hold_prefix(key: CounterKey, metric: Metric) -> str:
    """Return the JSON of a hold up to its amounts: the same for all calls that hold on one counter."""
    start = datetime.fromtimestamp(key.window_start, UTC).isoformat()
    return f'[{key.limit_id},"{start}","{metric.value}",'


def _record_row(booking: Booking) -> dict[str, Any]:
    terms, scope = booking.reservation.terms, booking.reservation.terms.scope
    settlement, actual = booking.settlement, booking.settlement.actual
    return {
        "tenant_id": scope.tenant_id,
        "attempt_id": terms.attempt_id,
        "kind": settlement.kind.value,
        "request_id": terms.request_id,
        "dispatched_at": booking.reservation.dispatched_at,
        "worker_epoch": booking.reservation.worker_epoch,
        "department_path": scope.department_path,
        "project_id": scope.project_id,
        "credential_id": scope.credential_id,
        "principal_id": scope.principal_id,
        "method": terms.method,
        "tier": terms.tier,
        "model": terms.model,
        "account_id": terms.account_id,
        "labels": terms.labels,
        "price_version": terms.price_version,
        "requests": actual.requests,
        "input_tokens": actual.input_tokens,
        "output_tokens": actual.output_tokens,
        "images": actual.images,
        "cost_nanos": actual.cost_nanos,
        "ceiling_nanos": terms.ceiling.cost_nanos,
        "usage": orjson.Fragment(settlement.usage),
        "lines": orjson.Fragment(settlement.lines),
        "outcome": settlement.outcome,
        "response_id": settlement.response_id,
        "holds": orjson.Fragment(booking.reservation.holds_text),
    }


def _suspense_row(booking: Booking) -> dict[str, Any]:
    return {
        "tenant_id": booking.reservation.terms.scope.tenant_id,
        "attempt_id": booking.reservation.terms.attempt_id,
        "worker_epoch": booking.reservation.worker_epoch,
        "cause": booking.settlement.outcome,
        **booking.settlement.actual._asdict(),
    }


def reservation_of(row: "asyncpg.Record") -> Reservation:
    """Rebuild a reservation from its row in `attempt`; it only has to end, so what admits a call is left empty."""
    said = json.loads(row["terms"])
    terms = CallTerms(
        attempt_id=_plain(row["attempt_id"]),
        request_id=_plain(row["request_id"]),
        fingerprint=b"",
        first=False,
        scope=Scope(
            tenant_id=row["tenant_id"],
            department_path=tuple(said["department_path"]),
            project_id=said["project_id"],
            credential_id=said["credential_id"],
            credential_name="",
            principal_id=said["principal_id"],
        ),
        method=said["method"],
        tier=said["tier"],
        model=said["model"],
        account_id=said["account_id"],
        labels=said["labels"],
        price_version=said["price_version"],
        ceiling=Amounts(*said["ceiling"]),
    )
    return Reservation(
        terms=terms,
        holds=holds_of(row["tenant_id"], row["holds"]),
        holds_text=row["holds"],
        dispatched_at=row["dispatched_at"],
        worker_epoch=row["worker_epoch"],
        shares=Shares(*said["shares"]) if "shares" in said else EVERYTHING,
        max_output_tokens=said.get("max_output_tokens"),
        clamped_by=said.get("clamped_by", ""),
        top_ups=row["top_ups"],
    )


def _plain(driver_uuid: UUID) -> UUID:
    """Return asyncpg's UUID as Python's own: orjson writes no other."""
    return UUID(int=driver_uuid.int)


def holds_of(tenant_id: str, text: str) -> tuple[Hold, ...]:
    """Return holds from the JSON in which attempts and records keep them."""
    return tuple(
        Hold(CounterKey(tenant_id, limit_id, _seconds(start)), Metric(metric), amount, expected)
        for limit_id, start, metric, amount, expected in json.loads(text)
    )


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
