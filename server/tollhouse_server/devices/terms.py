"""The words of on-device use as types, and the bounds that no receipt may pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from tollhouse_server.names import DeviceName

LONGEST_AHEAD: Final = timedelta(minutes=5)
"""How far a device's clock may be ahead."""

LONGEST_AGO: Final = timedelta(days=35)
"""How long a device may have been without a network: a month, and some days to report it."""

MAX_REQUESTS: Final = 100_000
"""Requests that one receipt may stand for."""

MAX_REQUEST_TOKENS: Final = 131_072
"""Tokens of the prompt, and of the answer, of one request: the largest context of a model made for devices."""

DEFAULT_DAILY_RECEIPTS: Final = 10_000
DEFAULT_DAILY_TOKENS: Final = 50_000_000
"""What is taken from a device in a day where nobody says otherwise: all that somebody with its key can make up."""


class Verdict(StrEnum):
    """What became of a receipt."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    REFUSED = "REFUSED"


class Refusal(StrEnum):
    """Why a receipt was refused, named as in `tollhouse.v1.ReceiptRefusal`."""

    MALFORMED = "MALFORMED"
    DEVICE_UNKNOWN = "DEVICE_UNKNOWN"
    DEVICE_REVOKED = "DEVICE_REVOKED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    OTHER_PROJECT = "OTHER_PROJECT"
    IN_FUTURE = "IN_FUTURE"
    TOO_OLD = "TOO_OLD"
    IMPLAUSIBLE = "IMPLAUSIBLE"
    NUMBER_REUSED = "NUMBER_REUSED"
    DAILY_LIMIT = "DAILY_LIMIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a device says that it did. `digest` is the SHA-256 of the bytes that say it."""

    device: DeviceName
    receipt_id: UUID
    sequence: int
    started_at: datetime
    model: str
    input_tokens: int
    output_tokens: int
    requests: int
    task: str
    labels: Mapping[str, str]
    digest: bytes

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A receipt as it came: signed bytes, signature, and what the bytes say; `problem` where they say nothing."""

    signed: bytes
    signature: bytes
    receipt: Receipt | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Avoided:
    """What the same tokens would have cost on `model`; `nanos` None where there was no price."""

    model: str
    nanos: int | None
    price_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one receipt. Accepted ones carry the receipt and what was avoided, refused ones the reason."""

    verdict: Verdict
    receipt: Receipt | None = None
    avoided: Avoided | None = None
    refusal: Refusal | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDeviceSums:
    """On-device use added up. `avoided_nanos` leaves out `unpriced_requests`."""

    receipts: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    avoided_nanos: int = 0
    unpriced_requests: int = 0
