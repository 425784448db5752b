"""Upstream accounts, their limits and keys, and the targets that they make with a model."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tollhouse_server.upstream.protocol import Destination, UpstreamKind


class AccountMetric(StrEnum):
    """What an upstream account's limit counts, and over which time. Google limits projects, never keys."""

    REQUESTS_PER_MINUTE = "REQUESTS_PER_MINUTE"
    INPUT_TOKENS_PER_MINUTE = "INPUT_TOKENS_PER_MINUTE"
    REQUESTS_PER_DAY = "REQUESTS_PER_DAY"
    """A day ends at midnight Pacific time (ai.google.dev/gemini-api/docs/rate-limits, read November 2026)."""
    IMAGES_PER_MINUTE = "IMAGES_PER_MINUTE"
    SPEND_PER_10_MINUTES = "SPEND_PER_10_MINUTES"
    """Nano-dollars at list price, over rolling ten minutes."""
    CONCURRENT_CALLS = "CONCURRENT_CALLS"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimit:
    """One limit that the upstream sets an account; an empty model means all models together."""

    metric: AccountMetric
    amount: int
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An active upstream account with its address, which only settings can name.

    `endpoint` is the address's name there. `egress_url` is the proxy that its calls leave through, empty for none; it
    may hold a password. `tenant_id` and `environment` (`live` or `test`) say for whom alone it is, empty for everybody.
    """

    account_id: str
    kind: UpstreamKind
    project: str
    base_url: str
    endpoint: str = ""
    region: str = ""
    egress_url: str = field(default="", repr=False)
    tenant_id: str = ""
    environment: str = ""
    limits: tuple[AccountLimit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamKeyMeta:
    """What is known of an active key outside Vault."""

    account_id: str
    key_id: str
    vault_version: int
    fingerprint: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one attempt of a call can go.

    Targets of a lower `rank` come first; among those of one rank `weight` says how much of the traffic each should get.
    `endpoint` is the name of the address in settings, by which the price book knows a relay's surcharge.
    """

    kind: UpstreamKind
    account_id: str
    project: str
    base_url: str
    api_version: str
    model: str
    region: str
    endpoint: str = ""
    egress_url: str = field(default="", repr=False)
    rank: int = 0
    weight: int = 1
    destination: Destination = field(init=False, repr=False, compare=False)
    """Where an attempt goes, as the upstream's clients want it."""

    def __post_init__(self) -> None:
        destination = Destination(
            kind=self.kind,
            base_url=self.base_url,
            api_version=self.api_version,
            model=self.model,
            project=self.project,
            region=self.region,
            egress_url=self.egress_url,
        )
        object.__setattr__(self, "destination", destination)
