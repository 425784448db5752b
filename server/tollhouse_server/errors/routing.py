"""What a routing policy does not allow."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class TierAutoOff(TollhouseError):
    """Tier "auto" was named where no routing policy has switched it on."""

    reason = "MODEL_UNKNOWN"

    def message(self) -> str:
        return (
            'Tier "auto" is off here: name another tier or a model, '
            "or have an administrator switch it on in the routing policy."
        )


@dataclass(eq=False, kw_only=True)
class ModelNotAllowed(TollhouseError):
    """The routing policy of a scope above the call does not allow a tier or model; `allowed` says what it allows."""

    reason = "MODEL_NOT_ALLOWED"
    name: str
    scope: str
    allowed: str

    def message(self) -> str:
        return f"{self.scope} does not allow {self.name}; it allows: {self.allowed or 'nothing'}."


@dataclass(eq=False, kw_only=True)
class RegionNotAllowed(TollhouseError):
    """The routing policy of a scope above the call does not allow where it would have to go."""

    reason = "REGION_NOT_ALLOWED"
    place: str
    scope: str
    allowed: str

    def message(self) -> str:
        return f"{self.scope} does not allow {self.place}; it allows: {self.allowed or 'nothing'}."


@dataclass(eq=False, kw_only=True)
class OnDeviceOnly(TollhouseError):
    """The call must be answered on the device: by a rule of the routing policy, or by its own word if `rule` is ""."""

    reason = "ON_DEVICE_ONLY"
    rule: str = ""
    scope: str = ""

    def message(self) -> str:
        if not self.rule:
            return "routing.on_device says that the device must answer: ask ResolveRoute, and do not send the call."
        return f"Rule {self.rule} of {self.scope} keeps this call on the device; it cannot be sent to a cloud model."
