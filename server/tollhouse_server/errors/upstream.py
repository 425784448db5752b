"""What became of a call upstream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class UpstreamRefused(TollhouseError):
    """Gemini refused the request itself (400, 404 ...): its own status and words are passed on. Costs nothing."""

    reason = "UPSTREAM_REFUSED"
    http_status: int
    status: str
    upstream_message: str
    body: Mapping[str, Any] = field(default_factory=dict)

    def message(self) -> str:
        return f"Gemini refused the request ({self.http_status} {self.status}): {self.upstream_message}"


@dataclass(eq=False, kw_only=True)
class UpstreamExhausted(TollhouseError):
    """Every target that may serve this call is out of quota upstream."""

    reason = "UPSTREAM_EXHAUSTED"
    retry_after_seconds: float | None
    body: Mapping[str, Any] = field(default_factory=dict)

    def message(self) -> str:
        return "Every upstream account for this model is out of quota for the moment; retry after the stated delay."


@dataclass(eq=False, kw_only=True)
class UpstreamUnavailable(TollhouseError):
    """No target answered; every attempt is known to have cost nothing."""

    reason = "UPSTREAM_UNAVAILABLE"
    attempts: int
    last_error: str

    def message(self) -> str:
        return (
            f"No upstream target could serve the call ({self.attempts} attempts, last: {self.last_error}); "
            "nothing was charged."
        )


@dataclass(eq=False, kw_only=True)
class UpstreamOutcomeUnknown(TollhouseError):
    """The call was sent and may have been served and charged; it is booked in suspense and never sent again."""

    reason = "UPSTREAM_OUTCOME_UNKNOWN"
    attempt_id: str
    last_error: str

    def message(self) -> str:
        return (
            f"The upstream connection broke after the call was sent ({self.last_error}); it may have been charged "
            f"and is booked in suspense as attempt {self.attempt_id}."
        )


@dataclass(eq=False, kw_only=True)
class UsageMissing(TollhouseError):
    """The call was answered, and the answer does not say what it used: never taken for nothing."""

    reason = "UPSTREAM_OUTCOME_UNKNOWN"
    detail: str = ""

    def message(self) -> str:
        return (
            f"Gemini answered without usable usage ({self.detail}); the call is booked in suspense for reconciliation."
        )


@dataclass(eq=False, kw_only=True)
class NoUpstreamKey(TollhouseError):
    """No usable upstream key for any target of this model."""

    reason = "NO_UPSTREAM_KEY"
    model: str

    def message(self) -> str:
        return (
            f"No usable upstream key for {self.model}; "
            "an administrator must add one with 'tollhouse upstream-keys add'."
        )
