"""What every kind of upstream offers, and the three ways in which a call to it can fail."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from tollhouse_server.long_values import Json

ATTEMPT_HEADER = "x-tollhouse-attempt-id"
"""Carries our attempt id upstream; the simulator's call log is matched with the ledger by it. Google ignores it."""


class UpstreamKind(StrEnum):
    """The kinds of service behind an account; the simulator can be each of them at another address."""

    GEMINI_API = "gemini_api"
    VERTEX = "vertex"
    OPENAI_COMPATIBLE = "openai_compatible"


class Method(StrEnum):
    """A method of Gemini's REST API, by its name in the path."""

    GENERATE = "generateContent"
    STREAM = "streamGenerateContent"
    COUNT_TOKENS = "countTokens"
    EMBED = "batchEmbedContents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where one attempt goes: hosts and proxies come from the deployment's settings, never from a tenant.

    `project` and `region` are Google's, needed for Vertex. `egress_url` is the proxy to leave through, empty for none.
    """

    kind: UpstreamKind = UpstreamKind.GEMINI_API
    base_url: str
    api_version: str
    model: str
    project: str = ""
    region: str = ""
    egress_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamCall:
    """One attempt as it is sent; `body` is Gemini's JSON whatever the kind of upstream.

    `timeout_seconds` bounds the whole exchange, `silence_seconds` the time in which not one byte comes (None: not
    bounded), `pause_seconds` the same after a stream's first chunk (None: as before it). `key` is what the key in
    Vault says: an API key, a service account's JSON, or a bearer token.
    """

    attempt_id: UUID
    destination: Destination
    method: Method
    body: Json
    timeout_seconds: float
    silence_seconds: float | None = None
    pause_seconds: float | None = None
    key: str = field(repr=False)


class UpstreamError(Exception):
    """An attempt failed; the subclass says whether it can have been charged."""


class NotSent(UpstreamError):
    """No byte of the request reached the upstream: it cost nothing and may go elsewhere."""


class Refused(UpstreamError):
    """The upstream answered with an error status, which it does not charge (ai.google.dev/gemini-api/docs/billing)."""

    def __init__(self, http_status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"HTTP {http_status}")
        self.http_status = http_status
        self.body = body

    @property
    def error(self) -> Mapping[str, Any]:
        """Return Gemini's error object, empty when the body had none."""
        error = self.body.get("error")
        return error if isinstance(error, Mapping) else {}


class Broken(UpstreamError):
    """The exchange broke after the request was sent: it may have been served and charged."""


class TimedOut(Broken):
    """The exchange was ended by us, because no answer, or no more of it, came in the time that it was given."""


class Upstream(Protocol):
    """One kind of upstream. All methods raise NotSent, Refused or Broken, nothing else."""

    async def call(self, call: UpstreamCall) -> dict[str, Any]:
        """Send a unary call and return the whole answer: Gemini's own JSON, untouched."""

    def stream(self, call: UpstreamCall) -> AsyncGenerator[dict[str, Any], None]:
        """Send a streaming call and yield each chunk as it comes."""
