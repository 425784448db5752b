"""The TollhouseError family: a class names a fact and carries what a program needs to act on it.

Only `api/statuses.py` (and the REST doors) know status codes. `reason` is the value of `tollhouse.v1.Reason` that a
caller sees; the message is for people and must say what to do. Nothing here may carry a secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar


class TollhouseError(Exception):
    """A fact that stops a call; each subclass is a keyword-only dataclass whose `message()` says what to do."""

    reason: ClassVar[str] = "INTERNAL"

    def message(self) -> str:
        """Say in one sentence what is wrong and what to do about it."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.message()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One field of a request or a file that is wrong: its path (`prices[3].cost`) and why."""

    path: str
    description: str


# --- who is calling, and may he ---------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class CredentialsInvalid(TollhouseError):
    """The call carries no usable credential. The text is the same for every cause: it tells nothing of existence."""

    reason = "CREDENTIALS_INVALID"

    def message(self) -> str:
        return (
            "The credential is missing, malformed, unknown, expired or revoked; "
            "send a valid API key as 'authorization: Bearer th_...'."
        )


@dataclass(eq=False, kw_only=True)
class PermissionDenied(TollhouseError):
    """The principal lacks `permission` on `scope`; says nothing of whether the scope exists."""

    reason = "PERMISSION_DENIED"
    permission: str
    scope: str

    def message(self) -> str:
        return (
            f"Permission {self.permission} is required on {self.scope}; "
            "ask an administrator of that scope for a role that has it."
        )


# --- the request ------------------------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class InvalidRequest(TollhouseError):
    """Fields of the request are wrong; nothing was booked."""

    reason = "INVALID_REQUEST"
    violations: tuple[FieldViolation, ...]

    def message(self) -> str:
        return "Invalid request: " + "; ".join(
            f"{v.path}: {v.description}" if v.path else v.description for v in self.violations
        )


@dataclass(eq=False, kw_only=True)
class RequestTooLarge(TollhouseError):
    """The request is bigger than the server takes."""

    reason = "REQUEST_TOO_LARGE"
    size_bytes: int
    limit_bytes: int

    def message(self) -> str:
        return f"The request has {self.size_bytes} bytes; the limit is {self.limit_bytes}."


@dataclass(eq=False, kw_only=True)
class RequestIdReused(TollhouseError):
    """The same request id came with another body within 24 hours."""

    reason = "REQUEST_ID_REUSED"
    request_id: str

    def message(self) -> str:
        return (
            f"Request id {self.request_id} was used for another request within 24 hours; "
            "make a new id for each new request."
        )


@dataclass(eq=False, kw_only=True)
class DuplicateRequest(TollhouseError):
    """The same request came again; it was dispatched once and is not sent again."""

    reason = "DUPLICATE_REQUEST"
    request_id: str
    state: str

    def message(self) -> str:
        return (
            f"Request id {self.request_id} was dispatched already (state {self.state}) and is never sent twice; "
            "its receipt is in UsageService."
        )


@dataclass(eq=False, kw_only=True)
class DeadlineTooShort(TollhouseError):
    """The caller's deadline ended before the call could be dispatched; nothing was sent upstream."""

    reason = "DEADLINE_TOO_SHORT"

    def message(self) -> str:
        return "The deadline ended before the call could be sent upstream; nothing was booked. Allow more time."


# --- catalogue and prices ---------------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class ModelUnknown(TollhouseError):
    """No tier, model or alias of this name in the catalogue."""

    reason = "MODEL_UNKNOWN"
    name: str

    def message(self) -> str:
        return f"No tier or model is called {self.name!r}; CatalogService.ListTiers and ListModels show the names."


@dataclass(eq=False, kw_only=True)
class ModelShutDown(TollhouseError):
    """The model's shutdown date has passed."""

    reason = "MODEL_SHUT_DOWN"
    model: str
    shutdown_on: str
    successor: str

    def message(self) -> str:
        return f"Model {self.model} was shut down on {self.shutdown_on}" + (
            f"; use {self.successor}." if self.successor else "."
        )


@dataclass(eq=False, kw_only=True)
class ModelUnpriced(TollhouseError):
    """The price book has no price for something this call could be charged for: it is refused, not free."""

    reason = "MODEL_UNPRICED"
    model: str
    sku: str

    def message(self) -> str:
        return (
            f"Model {self.model} has no price for {self.sku} today, so it cannot be called; "
            "an administrator must import one."
        )


@dataclass(eq=False, kw_only=True)
class PriceFileInvalid(TollhouseError):
    """A price or catalogue file is refused whole; the last good one stays in force."""

    reason = "PRICE_FILE_INVALID"
    violations: tuple[FieldViolation, ...]

    def message(self) -> str:
        return "The price file is refused, nothing was changed: " + "; ".join(
            f"{v.path}: {v.description}" for v in self.violations
        )


# --- the ledger -------------------------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class LimitExceeded(TollhouseError):
    """`held + settled + requested` would pass `amount` on one limit; nothing was held anywhere.

    Amounts are in the unit of `metric`: nano-dollars for COST, else a count.
    """

    reason = "LIMIT_EXCEEDED"
    limit: str
    metric: str
    window: str
    amount: int
    held: int
    settled: int
    requested: int
    resets_at: datetime | None
    retry_after_seconds: float | None

    def message(self) -> str:
        when = f"resets at {self.resets_at.isoformat()}" if self.resets_at else "does not reset by itself"
        return (
            f"Limit {self.limit} ({self.metric} per {self.window}) of {self.amount} would be exceeded: "
            f"held {self.held}, settled {self.settled}, requested {self.requested}; it {when}."
        )


@dataclass(eq=False, kw_only=True)
class StoreUnavailable(TollhouseError):
    """PostgreSQL cannot be reached or did not answer in time; nothing was admitted unbooked."""

    reason = "STORE_UNAVAILABLE"
    detail: str = ""

    def message(self) -> str:
        return "The ledger's database is not available; nothing was sent or booked. Try again shortly."


# --- upstream ---------------------------------------------------------------------------------------------------------


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


# --- Vault ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class VaultUnavailable(TollhouseError):
    """Vault is sealed, gone or too slow."""

    reason = "VAULT_UNAVAILABLE"
    detail: str = ""

    def message(self) -> str:
        return (
            "Vault is not available (stopped, sealed or unreachable); keys already held keep serving. "
            "Unseal or start Vault and try again."
        )


@dataclass(eq=False, kw_only=True)
class VaultDenied(TollhouseError):
    """Vault refused this role: its policy does not allow the path."""

    reason = "VAULT_DENIED"
    path: str

    def message(self) -> str:
        return f"Vault's policy does not allow this server's role to use {self.path}; check the AppRole's policy."


@dataclass(eq=False, kw_only=True)
class SecretMissing(TollhouseError):
    """No secret at this path in Vault."""

    reason = "SECRET_MISSING"
    path: str

    def message(self) -> str:
        return f"There is no secret at {self.path} in Vault."


# --- resources --------------------------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class ResourceNotFound(TollhouseError):
    """The caller may see this scope, and there is nothing of this name in it."""

    reason = "RESOURCE_NOT_FOUND"
    name: str

    def message(self) -> str:
        return f"{self.name} does not exist."


@dataclass(eq=False, kw_only=True)
class ResourceExists(TollhouseError):
    """A resource of this name exists already."""

    reason = "RESOURCE_EXISTS"
    name: str

    def message(self) -> str:
        return f"{self.name} exists already; choose another id or update it."


@dataclass(eq=False, kw_only=True)
class ResourceInUse(TollhouseError):
    """The resource cannot be removed or changed while others depend on it."""

    reason = "RESOURCE_IN_USE"
    name: str
    used_by: str

    def message(self) -> str:
        return f"{self.name} is used by {self.used_by}; remove or move that first."


@dataclass(eq=False, kw_only=True)
class EtagMismatch(TollhouseError):
    """Someone changed the resource since it was read."""

    reason = "ETAG_MISMATCH"
    name: str

    def message(self) -> str:
        return f"{self.name} was changed since you read it; read it again and repeat the change on the new version."


@dataclass(eq=False, kw_only=True)
class ServerDraining(TollhouseError):
    """This worker is shutting down and takes no new calls."""

    reason = "SERVER_DRAINING"

    def message(self) -> str:
        return "This server is shutting down; try again, another one will answer."
