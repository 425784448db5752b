"""What a call asks of the catalogue, and the route that it gets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tollhouse_server.routing.complexity import AutoChoice
from tollhouse_server.routing.policies import UNRESTRICTED, EffectivePolicy
from tollhouse_server.routing.targets import Target
from tollhouse_server.upstream.protocol import UpstreamKind


class OnDevice(StrEnum):
    """Whether a device may or must answer, as `tollhouse.v1.OnDevice` without its prefix."""

    ALLOWED = "ALLOWED"
    REQUIRED = "REQUIRED"
    FORBIDDEN = "FORBIDDEN"


class Reason(StrEnum):
    """Why something was left out of a route, as `tollhouse.v1.LeftOutReason` without its prefix."""

    SHUT_DOWN = "SHUT_DOWN"
    METHOD = "METHOD"
    MODEL_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
    KIND_NOT_ALLOWED = "KIND_NOT_ALLOWED"
    REGION_NOT_ALLOWED = "REGION_NOT_ALLOWED"
    KIND_NOT_ASKED = "KIND_NOT_ASKED"
    REGION_NOT_ASKED = "REGION_NOT_ASKED"
    CAPABILITY = "CAPABILITY"
    TOO_LARGE = "TOO_LARGE"
    FALLBACK = "FALLBACK"
    NO_ACCOUNT = "NO_ACCOUNT"


# A plain dict, because labels are booked as JSON; by its type nobody may write to it.
NO_LABELS: Final[Mapping[str, str]] = {}


class RouteRequest(NamedTuple):
    """A call as routing sees it.

    Args:
        method: a key of METHODS.
        at: the moment of the call, which decides what is shut down.
        tier: a tier's name; not needed beside a model.
        model: a model's id or alias, with or without "models/"; it holds where both are given.
        tenant_id, department_path, project_id: whose policy holds, the path from the top down.
        environment: that of the credential; accounts that are for one serve no other.
        region: only accounts of this region; None means any that the policy allows.
        kinds: only these kinds of upstream; empty means every one that the policy allows.
        allow_fallback: whether a tier's further choices may serve; None means the policy's word.
        on_device: the call's own word; REQUIRED is refused, because nothing may be sent then.
        labels: the call's, for rules that keep data on the device.
        is_offline: whether the device that asks has no network; only ResolveRoute knows.
        input_tokens: of the prompt, where the caller knows; None means what the body tells.
        body: the request in Gemini's REST JSON; None leaves out what depends on it.
    """

    method: str
    at: datetime
    tier: str | None = None
    model: str | None = None
    tenant_id: str = ""
    department_path: tuple[str, ...] = ()
    project_id: str = ""
    environment: str = ""
    region: str | None = None
    kinds: frozenset[UpstreamKind] = frozenset()
    allow_fallback: bool | None = None
    on_device: OnDevice = OnDevice.ALLOWED
    labels: Mapping[str, str] = NO_LABELS
    is_offline: bool = False
    input_tokens: int | None = None
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Something that could serve the name, but not this call; without an account, all of the model's."""

    model: str
    reason: Reason
    detail: str
    kind: UpstreamKind | None = None
    account_id: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retiring:
    """A model or alias that will be shut down soon; `successor` is "" where none is named."""

    model: str
    shutdown_at: datetime
    successor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The targets for a call in the order of their ranks; `tier` is "" for a model that stands behind none.

    `choice` is there when the caller named tier "auto"; `tier` is then the one that was chosen. `policy` says what
    holds for the call: the priority it is granted, whether it may be sent anew.
    """

    tier: str
    targets: tuple[Target, ...]
    left_out: tuple[LeftOut, ...] = ()
    retiring: tuple[Retiring, ...] = ()
    choice: AutoChoice | None = None
    policy: EffectivePolicy = UNRESTRICTED

    def narrowed(self, targets: tuple[Target, ...], left_out: Iterable[LeftOut]) -> "Route":
        """Return it with fewer targets, and what was left out besides; what retires is one of the targets' models."""
        retiring = tuple(one for one in self.retiring if any(one.model == target.model for target in targets))
        return replace(self, targets=targets, left_out=(*self.left_out, *left_out), retiring=retiring)
