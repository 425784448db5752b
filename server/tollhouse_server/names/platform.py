"""Names of what belongs to the platform, but for money."""

from dataclasses import dataclass

from tollhouse_server.names.form import Name


@dataclass(frozen=True, slots=True)
class TierName(Name):
    """A tier of the catalogue."""

    template = "tiers/{tier}"
    tier: str


@dataclass(frozen=True, slots=True)
class ModelName(Name):
    """A model of the catalogue."""

    template = "models/{model}"
    model: str


@dataclass(frozen=True, slots=True)
class AliasName(Name):
    """Another name of a model."""

    template = "aliases/{alias}"
    alias: str


@dataclass(frozen=True, slots=True)
class RoleName(Name):
    """A role."""

    template = "roles/{role}"
    role: str


@dataclass(frozen=True, slots=True)
class AccountName(Name):
    """An upstream account."""

    template = "accounts/{account}"
    account: str


@dataclass(frozen=True, slots=True)
class UpstreamKeyName(Name):
    """A key of an upstream account."""

    template = "accounts/{account}/upstreamKeys/{upstream_key}"
    account: str
    upstream_key: str


@dataclass(frozen=True, slots=True)
class KeyRotationName(Name):
    """A rotation or revocation of a key of an upstream account."""

    template = "accounts/{account}/keyRotations/{key_rotation}"
    account: str
    key_rotation: str


@dataclass(frozen=True, slots=True)
class KeyPolicyName(Name):
    """How the keys of an upstream account are rotated."""

    template = "accounts/{account}/keyPolicy"
    account: str


@dataclass(frozen=True, slots=True)
class UsageExportName(Name):
    """The export of one month's usage records."""

    template = "usageExports/{month}"
    month: str
