"""Devices, their receipts and what they did, between the wire and the words of `devices`."""

import hashlib
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from google.protobuf.message import DecodeError
from tollhouse.admin.v1 import devices_pb2 as admin
from tollhouse.v1 import devices_pb2 as pb

from tollhouse_server.api.values import etag, moment_of, money, timestamp
from tollhouse_server.devices.keys import fingerprint
from tollhouse_server.devices.store import DeviceView
from tollhouse_server.devices.terms import MAX_REQUESTS, OnDeviceSums, Outcome, Receipt, Sealed, Verdict
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.money import MAX_NANOS
from tollhouse_server.names import DeviceName, invalid

_MOST_BYTES: Final = 8192
_MOST_TEXT: Final = 100
_MOST_LABELS: Final = 16
_MOST_LABEL: Final = 128


def device_message(view: DeviceView) -> admin.Device:
    """Return a device as administrators see it."""
    row = view.row
    return admin.Device(
        name=str(view.name),
        display_name=row.display_name,
        project=str(view.project),
        public_key_fingerprint=fingerprint(row.public_key),
        max_daily_receipts=row.max_daily_receipts,
        max_daily_tokens=row.max_daily_tokens,
        state=admin.Device.STATE_ACTIVE if row.revoked_at is None else admin.Device.STATE_REVOKED,
        last_report_time=timestamp(row.last_report_at),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        revoke_time=timestamp(row.revoked_at),
        etag=etag(row.version),
    )


def sealed_receipt(signed: pb.SignedReceipt) -> Sealed:
    """Return a receipt as it came, with what it says if it says anything."""
    try:
        return Sealed(signed=signed.receipt, signature=signed.signature, receipt=_receipt(signed.receipt))
    except InvalidRequest as error:
        problem = "; ".join(f"{one.path} {one.description}" for one in error.violations)
        return Sealed(signed=signed.receipt, signature=signed.signature, problem=problem)


def _receipt(signed: bytes) -> Receipt:
    if len(signed) > _MOST_BYTES:
        raise invalid("receipt", f"has more than {_MOST_BYTES} bytes")
    try:
        said = pb.OnDeviceReceipt.FromString(signed)
    except DecodeError:
        raise invalid("receipt", "is not an encoded OnDeviceReceipt") from None
    if not said.HasField("started_at"):
        raise invalid("started_at", "is required")
    if not said.model:
        raise invalid("model", "is required")
    return Receipt(
        device=DeviceName.parse(said.device, "device"),
        receipt_id=_uuid(said.receipt_id),
        sequence=_within(said.sequence, 1, MAX_NANOS, "sequence"),
        started_at=moment_of(said.started_at, "started_at"),
        model=_text(said.model, _MOST_TEXT, "model"),
        input_tokens=_within(said.input_tokens, 0, MAX_NANOS, "input_tokens"),
        output_tokens=_within(said.output_tokens, 0, MAX_NANOS, "output_tokens"),
        requests=_within(said.requests or 1, 1, MAX_REQUESTS, "requests"),
        task=_text(said.task, _MOST_TEXT, "task"),
        labels=_labels(said),
        digest=hashlib.sha256(signed).digest(),
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise invalid("receipt_id", "must be a UUID") from None


def _within(value: int, least: int, most: int, field: str) -> int:
    if not least <= value <= most:
        raise invalid(field, f"must be at least {least}" if value < least else f"must be at most {most}")
    return value


def _text(text: str, longest: int, field: str) -> str:
    if len(text) > longest or "\0" in text:
        raise invalid(field, f"must have at most {longest} characters, none of them NUL")
    return text


def _labels(said: pb.OnDeviceReceipt) -> dict[str, str]:
    if len(said.labels) > _MOST_LABELS:
        raise invalid("labels", f"must be at most {_MOST_LABELS}")
    return {
        _text(name, _MOST_LABEL, "labels"): _text(value, _MOST_LABEL, "labels") for name, value in said.labels.items()
    }


def outcome_message(outcome: Outcome) -> pb.ReceiptOutcome:
    """Return what became of a receipt."""
    avoided = outcome.avoided
    refusal = "UNSPECIFIED" if outcome.refusal is None else outcome.refusal
    return pb.ReceiptOutcome(
        verdict=pb.ReceiptVerdict.Value(f"RECEIPT_VERDICT_{outcome.verdict}"),
        refusal=pb.ReceiptRefusal.Value(f"RECEIPT_REFUSAL_{refusal}"),
        message=outcome.message,
        avoided_cost=None if avoided is None or avoided.nanos is None else money(avoided.nanos),
        avoided_model="" if avoided is None else avoided.model,
    )


def sums_of(outcomes: Iterable[Outcome]) -> OnDeviceSums:
    """Add up what was accepted."""
    taken = [(one.receipt, one.avoided) for one in outcomes if one.verdict is Verdict.ACCEPTED and one.receipt]
    return OnDeviceSums(
        receipts=len(taken),
        requests=sum(receipt.requests for receipt, _ in taken),
        input_tokens=sum(receipt.input_tokens for receipt, _ in taken),
        output_tokens=sum(receipt.output_tokens for receipt, _ in taken),
        avoided_nanos=sum(avoided.nanos or 0 for _, avoided in taken if avoided is not None),
        unpriced_requests=sum(receipt.requests for receipt, avoided in taken if avoided and avoided.nanos is None),
    )


def use_message(sums: OnDeviceSums) -> pb.OnDeviceUsage:
    """Return on-device use as it is reported."""
    return pb.OnDeviceUsage(
        receipts=sums.receipts,
        requests=sums.requests,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        avoided_cost=money(sums.avoided_nanos),
        unpriced_requests=sums.unpriced_requests,
    )
