"""Who is calling, and may he."""

from dataclasses import dataclass
from enum import Enum

from tollhouse_server.errors.base import TollhouseError


class Fault(Enum):
    """What was wrong with a credential: for metrics and the audit, never for whoever presented it."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - the name of a fault
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    NETWORK = "network"
    ALGORITHM = "algorithm"
    SIGNATURE = "signature"
    SIGNING_KEY = "signing_key"
    CLAIMS = "claims"
    PRINCIPAL = "principal"


@dataclass(eq=False, kw_only=True)
class CredentialsInvalid(TollhouseError):
    """The call carries no usable credential. The text is the same for every cause: it tells nothing of existence."""

    reason = "CREDENTIALS_INVALID"
    # No text, so that no status carries it.
    fault: Fault = Fault.UNKNOWN

    def message(self) -> str:
        return (
            "The credential is missing, malformed, unknown, expired or revoked; "
            "send a valid API key or token as 'authorization: Bearer ...'."
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


@dataclass(eq=False, kw_only=True)
class IdentityProviderUnavailable(TollhouseError):
    """The keys of a token's issuer cannot be read, and what was read before is too old: the token may well be good."""

    reason = "IDENTITY_PROVIDER_UNAVAILABLE"

    def message(self) -> str:
        return "The keys of the token's issuer cannot be read now; try again later, or use an API key."
