"""What stands between a caller and what was sealed."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class KeyDestroyed(TollhouseError):
    """The tenant's data key was destroyed, and with it all that was sealed under it."""

    reason = "TENANT_KEY_DESTROYED"
    tenant: str

    def message(self) -> str:
        return (
            f"The data key under which this was sealed for tenant {self.tenant} is destroyed; it can never be read "
            "again. Where only the database was restored from a backup, erase the tenant's content once more: what "
            "comes later is then sealed under a new key."
        )


@dataclass(eq=False, kw_only=True)
class Unreadable(TollhouseError):
    """What is stored is not what was sealed for this tenant and purpose."""

    reason = "CONTENT_UNREADABLE"
    tenant: str

    def message(self) -> str:
        return (
            f"What is stored for tenant {self.tenant} is not what was sealed here: it was changed, cut or moved. "
            "Compare with a backup."
        )


@dataclass(eq=False, kw_only=True)
class ContentNotKept(TollhouseError):
    """The tenant wants every call kept, and this one could not be; nothing was sent."""

    reason = "CONTENT_NOT_KEPT"
    tenant: str
    cause: str

    def message(self) -> str:
        return (
            f"Tenant {self.tenant} has every call kept, and this one could not be now ({self.cause}); nothing was sent "
            "or charged. Try again in a while."
        )
