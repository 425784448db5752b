"""What stands in the way of the custody of upstream keys."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class RotationUnderWay(TollhouseError):
    """A rotation or revocation works on the key; what was asked for would cross it."""

    reason = "ROTATION_UNDER_WAY"
    name: str
    rotation: str

    def message(self) -> str:
        return f"{self.rotation} is at work on {self.name}; wait for its end, or cancel it before its key is promoted."


@dataclass(eq=False, kw_only=True)
class KeyProviderFailed(TollhouseError):
    """The provider of upstream keys did not do what it was asked to."""

    reason = "KEY_PROVIDER_FAILED"
    provider: str
    detail: str

    def message(self) -> str:
        return f"The key provider {self.provider} failed: {self.detail}; it will be asked again."
