"""Attempts and usage records as rows on their way to PostgreSQL, and attempts back again."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from tollhouse_server.ledger.columns import Columns, array_text
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
from tollhouse_server.ledger.windows import moment

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


ATTEMPT_KEY = Columns("tenant_id text, attempt_id uuid")

ATTEMPT = Columns(
    "tenant_id text, attempt_id uuid, request_id uuid, worker_epoch bigint, terms json, holds json, fingerprint text"
)
"""A new attempt; the fingerprint, in hexadecimal, is empty for one that claims no request id."""

GROWN_ATTEMPT = Columns("tenant_id text, attempt_id uuid, terms json, holds json, top_ups integer")

RECORD = Columns(
    "tenant_id text, attempt_id uuid, kind text, request_id uuid, dispatched_at timestamptz, worker_epoch bigint,"
    "department_path text[], project_id text, credential_id text, principal_id text, method text, tier text,"
    "model text, account_id text, labels jsonb, price_version bigint, requests bigint, input_tokens bigint,"
    "output_tokens bigint, images bigint, cost_nanos bigint, ceiling_nanos bigint, usage jsonb, lines jsonb,"
    "outcome text, response_id text, holds json, correlation_id text"
)

SUSPENSE = Columns(
    "tenant_id text, attempt_id uuid, worker_epoch bigint, cause text, requests bigint, input_tokens bigint,"
    "output_tokens bigint, images bigint, cost_nanos bigint"
)


def attempt_row(reservation: Reservation) -> tuple[object, ...]:
    """Return an admitted attempt in the order of ATTEMPT."""
    terms = reservation.terms
    return (
        terms.scope.tenant_id,
        terms.attempt_id,
        terms.request_id,
        reservation.worker_epoch,
        _terms_text(reservation),
        reservation.holds_text,
        terms.fingerprint.hex() if terms.first else "",
    )


def grown_row(reservation: Reservation) -> tuple[object, ...]:
    """Return what a top-up changes of an attempt in flight, in the order of GROWN_ATTEMPT."""
    terms = reservation.terms
    return (
        terms.scope.tenant_id,
        terms.attempt_id,
        _terms_text(reservation),
        reservation.holds_text,
        reservation.top_ups,
    )


def _terms_text(reservation: Reservation) -> str:
    terms, scope = reservation.terms, reservation.terms.scope
    said: dict[str, Any] = {
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
        "correlation_id": terms.correlation_id,
    }
    if reservation.shares is not EVERYTHING:
        said["shares"] = tuple(reservation.shares)
    if reservation.max_output_tokens is not None:
        said |= {"max_output_tokens": reservation.max_output_tokens, "clamped_by": reservation.clamped_by}
    return orjson.dumps(said).decode()


def holds_json(holds: Sequence[Hold]) -> str:
    """Return holds as attempts and records keep them."""
    return f"[{','.join([hold_prefix(one.key, one.metric) + f'{one.amount},{one.expected}]' for one in holds])}]"


def hold_prefix(key: CounterKey, metric: Metric) -> str:
    """Return the JSON of a hold up to its amounts: the same for all calls that hold on one counter."""
    start = moment(key.window_start).isoformat()
    return f'[{key.limit_id},"{start}","{metric.value}",'


def record_row(booking: Booking) -> tuple[object, ...]:
    """Return a usage record in the order of RECORD."""
    reservation, settlement = booking
    terms, scope = reservation.terms, reservation.terms.scope
    return (
        scope.tenant_id,
        terms.attempt_id,
        settlement.kind.value,
        terms.request_id,
        reservation.dispatched_at,
        reservation.worker_epoch,
        array_text(scope.department_path),
        scope.project_id,
        scope.credential_id,
        scope.principal_id,
        terms.method,
        terms.tier,
        terms.model,
        terms.account_id,
        orjson.dumps(terms.labels).decode(),
        terms.price_version,
        *settlement.actual,
        terms.ceiling.cost_nanos,
        settlement.usage,
        settlement.lines,
        settlement.outcome,
        settlement.response_id,
        reservation.holds_text,
        terms.correlation_id,
    )


def suspense_row(booking: Booking) -> tuple[object, ...]:
    """Return an open suspense in the order of SUSPENSE."""
    reservation, settlement = booking
    terms = reservation.terms
    return (
        terms.scope.tenant_id,
        terms.attempt_id,
        reservation.worker_epoch,
        settlement.outcome,
        *settlement.actual,
    )


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
        # Attempts that a server before this one has sent have none.
        correlation_id=said.get("correlation_id", ""),
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
