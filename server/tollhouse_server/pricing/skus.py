"""The kinds of use that have a price (SKUs), with the unit in which each is counted and quoted.

A token SKU is `<direction>_<modality>`, with `_long` behind it for requests above a model's long-context threshold.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Modality(StrEnum):
    """What tokens stand for, as Gemini's `modality` names it, in lower case."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    DOCUMENT = "document"


class Unit(StrEnum):
    """What a quantity counts."""

    TOKEN = "token"  # noqa: S105 - a unit, not a secret
    QUERY = "query"
    PROMPT = "prompt"
    SECOND = "second"
    TOKEN_HOUR = "token_hour"  # noqa: S105
    NANOS = "nanos"
    """Nano-dollars: a surcharge is a price of money."""


@dataclass(frozen=True, slots=True)
class Sku:
    """A kind of use: `quote_units` units cost the price that a price file states for it."""

    name: str
    unit: Unit
    quote_units: int


LONG = "_long"
INPUT, CACHED = "input", "cached"
OUTPUT_TEXT, OUTPUT_IMAGE, OUTPUT_AUDIO, THOUGHTS = "output_text", "output_image", "output_audio", "thoughts"
GROUNDING_QUERY, GROUNDING_PROMPT = "grounding_query", "grounding_prompt"
RELAY_SURCHARGE = "relay_surcharge"
"""What an upstream address costs on top of the list price; no price list has it, see `terms.Surcharge`."""

INPUT_SKUS = MappingProxyType({modality: f"{INPUT}_{modality}" for modality in Modality})
CACHED_SKUS = MappingProxyType({modality: f"{CACHED}_{modality}" for modality in Modality})
OUTPUT_SKUS = MappingProxyType({Modality.TEXT: OUTPUT_TEXT, Modality.IMAGE: OUTPUT_IMAGE, Modality.AUDIO: OUTPUT_AUDIO})

TOKEN_SKUS = (*INPUT_SKUS.values(), *CACHED_SKUS.values(), *OUTPUT_SKUS.values(), THOUGHTS)

SKUS = MappingProxyType(
    {
        **{name: Sku(name, Unit.TOKEN, 1_000_000) for base in TOKEN_SKUS for name in (base, base + LONG)},
        GROUNDING_QUERY: Sku(GROUNDING_QUERY, Unit.QUERY, 1_000),
        GROUNDING_PROMPT: Sku(GROUNDING_PROMPT, Unit.PROMPT, 1_000),
        "cache_storage": Sku("cache_storage", Unit.TOKEN_HOUR, 1_000_000),
        "output_video_second": Sku("output_video_second", Unit.SECOND, 1),
        "output_video_4k_second": Sku("output_video_4k_second", Unit.SECOND, 1),
    }
)
"""Every SKU there is, by name."""
