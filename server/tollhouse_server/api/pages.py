"""Page tokens: opaque, signed, and good only for the question that they continue."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

from tollhouse_server.names import invalid

_DEFAULT_SIZE: Final = 100
_MAX_SIZE: Final = 1000
_SEAL_BYTES: Final = 16

Row = TypeVar("Row")


class ListRequest(Protocol):
    """What every list request has; it is a protobuf message."""

    page_size: int
    page_token: str


class PageTokens:
    """Makes and reads page tokens under one key, the same on every server."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def size(self, request: ListRequest) -> int:
        """Return how many entries the request may be answered with."""
        return min(request.page_size or _DEFAULT_SIZE, _MAX_SIZE)

    def after(self, request: ListRequest) -> str:
        """Return the position after which to go on: the empty string at the beginning.

        Raises:
            InvalidRequest: the token was not made here, or for another request.
        """
        if not request.page_token:
            return ""
        try:
            sealed = base64.urlsafe_b64decode(request.page_token)
        except (binascii.Error, ValueError):
            sealed = b""
        seal, position = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(request, position)):
            raise invalid("page_token", "does not belong to this request; start again without it")
        return position.decode()

    def next(self, request: ListRequest, position: str) -> str:
        """Return the token with which the same request goes on after `position`."""
        encoded = position.encode()
        return base64.urlsafe_b64encode(self._seal(request, encoded) + encoded).decode()

    def split(self, request: ListRequest, rows: Sequence[Row]) -> tuple[Sequence[Row], Row | None]:
        """Return the page's rows, and its last one if more follow; `rows` was read one longer than the page."""
        size = self.size(request)
        return rows[:size], rows[size - 1] if len(rows) > size else None

    def _seal(self, request: ListRequest, position: bytes) -> bytes:
        assert isinstance(request, Message)  # noqa: S101 - what a Protocol cannot say
        question = type(request)()
        question.CopyFrom(request)
        question.ClearField("page_token")
        question.ClearField("page_size")
        asked = question.DESCRIPTOR.full_name.encode() + b"\0" + question.SerializeToString(deterministic=True)
        return hmac.digest(self._key, hashlib.sha256(asked).digest() + position, hashlib.sha256)[:_SEAL_BYTES]


def position_at(moment: datetime | None, key: str) -> str:
    """Return the position of a row of a list by moment and id; `moment` is that of a row that was written."""
    assert moment is not None  # noqa: S101 - the database has set it
    return f"{moment.isoformat()} {key}"


def moment_and_key(position: str) -> tuple[datetime, str] | None:
    """Return what `position_at` was made of; None at the beginning of a list."""
    if not position:
        return None
    moment, key = position.split(" ")
    return datetime.fromisoformat(moment), key
