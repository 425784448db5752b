"""What stands in the way of devices."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class DeviceKeyInUse(TollhouseError):
    """The public key belongs to another device of the tenant, perhaps a deleted one; which, is not told."""

    reason = "DEVICE_KEY_IN_USE"
    fingerprint: str
    tenant: str

    def message(self) -> str:
        return f"The public key {self.fingerprint} belongs to another device of {self.tenant}; make a new one."
