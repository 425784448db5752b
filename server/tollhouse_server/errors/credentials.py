"""Who is calling, and may he."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


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
