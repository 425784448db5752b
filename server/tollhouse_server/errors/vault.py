"""What Vault does not give."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


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
