"""What the catalogue is made of: models and their capabilities, aliases, tiers and their choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.upstream.protocol import UpstreamKind

NOTICE: Final = timedelta(days=30)
"""How long before its shutdown a model is said to be retiring, where the catalogue names no day."""


class Capability(StrEnum):
    """What a model can do, named as in `tollhouse.v1.Capability` without its prefix."""

    GENERATE_CONTENT = "GENERATE_CONTENT"
    STREAM_GENERATE_CONTENT = "STREAM_GENERATE_CONTENT"
    COUNT_TOKENS = "COUNT_TOKENS"
    EMBED_CONTENT = "EMBED_CONTENT"
    IMAGE_INPUT = "IMAGE_INPUT"
    AUDIO_INPUT = "AUDIO_INPUT"
    VIDEO_INPUT = "VIDEO_INPUT"
    DOCUMENT_INPUT = "DOCUMENT_INPUT"
    IMAGE_OUTPUT = "IMAGE_OUTPUT"
    AUDIO_OUTPUT = "AUDIO_OUTPUT"
    FUNCTION_CALLING = "FUNCTION_CALLING"
    STRUCTURED_OUTPUT = "STRUCTURED_OUTPUT"
    THINKING = "THINKING"
    CONTEXT_CACHING = "CONTEXT_CACHING"
    BATCH = "BATCH"


METHODS: Mapping[str, Capability] = {
    "generateContent": Capability.GENERATE_CONTENT,
    "streamGenerateContent": Capability.STREAM_GENERATE_CONTENT,
    "countTokens": Capability.COUNT_TOKENS,
    "embedContent": Capability.EMBED_CONTENT,
    "batchEmbedContents": Capability.EMBED_CONTENT,
}
"""Gemini's method names, and what a model must be able to do to serve them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the catalogue; `bounds` is what pricing needs to know of it.

    From `notice_at` on callers are told of its shutdown; None means 30 days before.
    """

    model: str
    display_name: str
    upstreams: tuple[UpstreamKind, ...]
    capabilities: frozenset[Capability]
    bounds: ModelBounds
    shutdown_at: datetime | None = None
    notice_at: datetime | None = None
    successor: str = ""
    source: str = ""

    @property
    def retires_from(self) -> datetime | None:
        """Return from when on callers are told that it will be shut down, None for a model without a date."""
        return None if self.shutdown_at is None else self.notice_at or self.shutdown_at - NOTICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Another name of a model; after `shutdown_at` it answers with the model's own name."""

    alias: str
    model: str
    shutdown_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierChoice:
    """One choice of a tier; empty account and region mean any account that can serve the model.

    Choices of one `rank` share the traffic by `weight`, lower ranks come first; None means its place in the tier, so
    that choices without a rank are asked one after the other.
    """

    model: str
    account_id: str = ""
    region: str = ""
    rank: int | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier and its choices, the first one first."""

    tier: str
    display_name: str
    description: str
    choices: tuple[TierChoice, ...]


def ranked(choices: tuple[TierChoice, ...]) -> list[tuple[int, TierChoice]]:
    """Return choices with their ranks, the lowest first; within a rank in their own order."""
    ranks = [(place if one.rank is None else one.rank, one) for place, one in enumerate(choices)]
    return sorted(ranks, key=lambda pair: pair[0])
