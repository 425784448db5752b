"""The words of custody: what a rotation goes through, who issues keys, and how an account's keys are rotated."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final


class KeyState(StrEnum):
    """Whether a key is used: only ACTIVE ones are picked for calls."""

    STAGED = "STAGED"
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    """Replaced: not picked any more, still good for the calls in flight."""
    DISABLED = "DISABLED"
    QUARANTINED = "QUARANTINED"
    REVOKED = "REVOKED"
    RETIRED = "RETIRED"
    """Gone at its provider and in Vault; the metadata stays."""


ROTATABLE: Final = (KeyState.ACTIVE, KeyState.DISABLED, KeyState.QUARANTINED)
"""States in which a key can be replaced, disabled and enabled."""


class Step(StrEnum):
    """What has to be done next for a rotation, in this order; each may be done twice and is then done once."""

    STAGE = "STAGE"
    """Get a new key and put it into Vault."""
    PROBE = "PROBE"
    """Ask the upstream something with it."""
    PROMOTE = "PROMOTE"
    """Put it to use beside the old one."""
    OVERLAP = "OVERLAP"
    """Wait until every process has read it, then take the old one out of use."""
    DRAIN = "DRAIN"
    """Wait until calls with the old one have ended."""
    RETIRE = "RETIRE"
    """Delete the old one at its provider."""
    DESTROY = "DESTROY"
    """Destroy every version of it in Vault."""
    ROLL_BACK = "ROLL_BACK"
    """Retire and destroy the new one; the old one goes on."""


BEFORE_PROMOTION = frozenset({Step.STAGE, Step.PROBE, Step.PROMOTE})


class Outcome(StrEnum):
    """How a rotation ended, or will end once it is rolled back."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Kind(StrEnum):
    """A rotation replaces a key; a revocation only ends one, from RETIRE on."""

    ROTATION = "ROTATION"
    REVOCATION = "REVOCATION"


class Cause(StrEnum):
    """Why it was started."""

    POLICY = "POLICY"
    REQUEST = "REQUEST"


class ProviderKind(StrEnum):
    """Who issues and retires the keys of an account."""

    MANUAL = "MANUAL"
    """A person does; service accounts of Vertex AI can be rotated in no other way here."""
    GOOGLE = "GOOGLE"
    SIMULATOR = "SIMULATOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """How an account's keys are rotated; the defaults hold where nothing was set."""

    provider: ProviderKind = ProviderKind.MANUAL
    rotation_period: timedelta = timedelta(days=60)
    drain_seconds: int = 600
    """Longer than a call may take: settings.upstream_timeout_seconds and its grace are below it by default."""


DEFAULT_POLICY = KeyPolicy()
