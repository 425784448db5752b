"""What a call asks for and what it gets, in Gemini's own JSON and in the ledger's terms."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from tollhouse_server.access.permit import UNLIMITED, Permit
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.ledger.terms import Scope
from tollhouse_server.pricing.price import Priced
from tollhouse_server.pricing.usage import Usage
from tollhouse_server.routing.complexity import AutoChoice
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.route import NO_LABELS, OnDevice
from tollhouse_server.upstream.protocol import Method, UpstreamKind


class GenerationCall(NamedTuple):
    """A call that is authenticated, authorised and valid. `body` is the REST body as the caller meant it, or, where
    his tenant has a data policy, as that lets it be sent.

    `deadline` is a moment of `time.monotonic()`, in seconds. What the caller says of routing is as in `RouteRequest`;
    `resend_unknown` lets it go to another target after an attempt whose outcome is unknown, at the risk of two charges
    (None: as the policy says). `booked_labels` are what its records have where that is not `labels`: values beyond a
    bound are folded into one, and the call must be the same call when it is sent again. Each attempt asks `permit`
    right before it is admitted, and before it is sent. `size_bytes` is how large the caller's message was;
    of a large one `digest` is the fingerprint, once it is known.
    """

    scope: Scope
    request_id: UUID
    method: Method
    tier: str | None
    model: str | None
    body: Mapping[str, Any]
    deadline: float
    labels: Mapping[str, str] = NO_LABELS
    booked_labels: Mapping[str, str] | None = None
    environment: str = ""
    region: str | None = None
    kinds: frozenset[UpstreamKind] = frozenset()
    allow_fallback: bool | None = None
    resend_unknown: bool | None = None
    priority: Priority = Priority.DEFAULT
    on_device: OnDevice = OnDevice.ALLOWED
    permit: Permit = UNLIMITED
    correlation_id: str = ""
    size_bytes: int = 0
    digest: bytes = b""

    def fingerprint(self) -> bytes:
        """Return a digest of all that makes the call what it is: the same id with another digest is a mistake."""
        if self.digest:
            return self.digest
        parts = [self.method, self.tier, self.model, self.scope.project_id, self.region, dict(self.labels), self.body]
        written, digest = encoded(parts, sort_keys=True), hashlib.sha256()
        for piece in (written,) if isinstance(written, bytes) else written.pieces():
            digest.update(piece)
        return digest.digest()


class TargetTried(NamedTuple):
    """One attempt of a call: where it went, and what came of it, as the API's AttemptOutcome names it.

    `attempt_id` is None where nothing was booked.
    """

    model: str
    kind: UpstreamKind
    account_id: str
    region: str
    outcome: str
    attempt_id: UUID | None


class RouteTaken(NamedTuple):
    """Which target answered, and all that were tried, in their order; the last is the one that answered.

    `choice` says how tier "auto" chose, None where the caller named something else.
    """

    tier: str
    model: str
    target: str
    account_id: str
    region: str
    tried: tuple[TargetTried, ...]
    choice: AutoChoice | None = None

    @property
    def attempts(self) -> int:
        """Return how many upstream attempts the call made."""
        return len(self.tried)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNotice:
    """Something the caller should know about how his call was served; `code` is a NoticeCode of the API."""

    code: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Outcome(NamedTuple):
    """What a served call used and cost, and how it was booked. `usage` is None where Gemini reported none."""

    attempt_id: UUID
    request_id: UUID
    scope: Scope
    route: RouteTaken
    usage: Usage | None
    priced: Priced
    settled_at: datetime
    notices: tuple[CallNotice, ...] = ()
    correlation_id: str = ""


class Answer(NamedTuple):
    """Gemini's answer, untouched, and what became of it here."""

    body: dict[str, Any]
    outcome: Outcome
