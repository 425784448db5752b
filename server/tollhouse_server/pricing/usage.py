"""What a call used, read from Gemini's own `usageMetadata`; a missing report is an error, a reported 0 is 0.

Rules, each on the dear side where the report leaves room:
- cached tokens are part of the prompt; where the report claims more cached than prompt, no discount is believed;
- details that sum to more than their count are charged as detailed; tokens without details are text, but in an answer
  with images and no details they are image tokens;
- `totalTokenCount` above the sum of its parts: the rest is charged as thinking; below it, the parts are charged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from tollhouse_server.errors import UsageMissing
from tollhouse_server.pricing.skus import Modality

MAX_TOKENS = 2**27
"""A count above this, sixty times the largest context there is, is garbage: booked, it would close every budget."""

_COUNTS = frozenset(
    {
        "promptTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "toolUsePromptTokenCount",
        "cachedContentTokenCount",
        "totalTokenCount",
    }
)
_TRAFFIC_TIERS = {"ON_DEMAND": "standard", "ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}
_MODALITIES = frozenset(modality.value for modality in Modality)
# Unreported cached tokens are taken from the cheapest modality first, so that the dearer ones stay uncached.
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_CHEAPEST_FIRST = ("text", "document", "image", "video", "audio", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A count of tokens by modality; `other` are tokens of a modality that this version does not know."""

    text: int = 0
    image: int = 0
    video: int = 0
    audio: int = 0
    document: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All tokens."""
        return self.text + self.image + self.video + self.audio + self.document + self.other


NO_TOKENS = Tokens()
TOKEN_KINDS = tuple(field.name for field in fields(Tokens))
"""The modalities under which tokens are counted, `other` included."""


@dataclass(slots=True, kw_only=True)
class Usage:
    """What one answered call used, normalised: `cached` never exceeds `prompt`, modality by modality.

    `flags` name what was inconsistent in the report and settled on the dear side. `service_tier` is what the answer
    reported, or None. Nobody changes one; frozen, it would be three times as dear, and every call makes one.
    """

    prompt: Tokens = NO_TOKENS
    cached: Tokens = NO_TOKENS
    tool_use: Tokens = NO_TOKENS
    candidates: Tokens = NO_TOKENS
    thoughts_tokens: int = 0
    images: int = 0
    grounding_queries: int = 0
    service_tier: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def input_tokens(self) -> int:
        """Prompt and tool-use tokens, cached ones included."""
        return self.prompt.total + self.tool_use.total

    @property
    def output_tokens(self) -> int:
        """Answer and thinking tokens."""
        return self.candidates.total + self.thoughts_tokens

    @property
    def total_tokens(self) -> int:
        """All tokens charged for."""
        return self.input_tokens + self.output_tokens


def from_generate(
    usage_metadata: Mapping[str, Any] | None,
    *,
    images: int = 0,
    grounding_queries: int = 0,
    blocked: bool = False,
) -> Usage:
    """Read the `usageMetadata` of a generateContent answer or of the chunk of a stream that reports counts.

    Args:
        usage_metadata: the object as Gemini sent it; None where it sent none.
        images: images in the answer (`counts_of`).
        grounding_queries: searches that the answer reports (`counts_of`).
        blocked: whether the prompt was blocked, which Vertex reports without any count: it used nothing.

    Raises:
        UsageMissing: there is no report, no count in it, or a count that cannot be one.
    """
    report = usage_metadata or {}
    if _COUNTS.isdisjoint(report):
        if blocked and usage_metadata is not None:
            return Usage(service_tier=_reported_tier(report))
        raise UsageMissing(detail="the answer reports no token counts")
    flags: list[str] = []
    prompt = _tokens(report, "promptTokenCount", ("promptTokensDetails", "promptTokenDetails"), flags)
    candidates = _candidates(report, images, flags)
    prompt, cached = _cached(report, prompt, flags)
    tool_use = _tokens(report, "toolUsePromptTokenCount", ("toolUsePromptTokensDetails",), flags)
    thoughts = _count(report, "thoughtsTokenCount")
    reported_sum = prompt.total + candidates.total + tool_use.total + thoughts
    return Usage(
        prompt=prompt,
        cached=cached,
        tool_use=tool_use,
        candidates=candidates,
        thoughts_tokens=thoughts + _unexplained(report, reported_sum, flags),
        images=images,
        grounding_queries=grounding_queries,
        service_tier=_reported_tier(report),
        flags=tuple(dict.fromkeys(flags)) if flags else (),
    )


def from_generate_body(body: Mapping[str, Any]) -> Usage:
    """Read the usage of one whole generateContent answer.

    Raises:
        UsageMissing: see `from_generate`.
    """
    meter = StreamUsage()
    meter.add(body)
    return meter.usage()


def from_embed(body: Mapping[str, Any]) -> Usage:
    """Read the usage of an embedContent or batchEmbedContents answer.

    Raises:
        UsageMissing: the answer has no usage; the older embedding models of the Developer API never report any.
    """
    return from_generate(_object(body.get("usageMetadata")) or None)


class StreamUsage:
    """Collects the usage of one answer chunk by chunk: images and searches add up, the last counts hold."""

    def __init__(self) -> None:
        self._metadata: Mapping[str, Any] | None = None
        self._images = 0
        self._grounding_queries = 0
        self._blocked = False

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take one chunk (or a whole answer) into account."""
        metadata = chunk.get("usageMetadata")
        # A later chunk without counts (Vertex sends only trafficType) does not undo an earlier one with counts.
        if isinstance(metadata, dict) and (self._metadata is None or not _COUNTS.isdisjoint(metadata)):
            self._metadata = metadata
        images, grounding_queries = counts_of(chunk)
        self._images += images
        # Grounding metadata is cumulative within a candidate, so chunks repeat it.
        self._grounding_queries = max(self._grounding_queries, grounding_queries)
        if feedback := chunk.get("promptFeedback"):
            self._blocked = self._blocked or "blockReason" in _object(feedback)

    def usage(self) -> Usage:
        """Return the usage so far.

        Raises:
            UsageMissing: no chunk reported any.
        """
        return from_generate(
            self._metadata, images=self._images, grounding_queries=self._grounding_queries, blocked=self._blocked
        )


def counts_of(body: Mapping[str, Any]) -> tuple[int, int]:
    """Count the images in an answer's parts, and the searches that it reports.

    Images shown while thinking are left out: they are not charged. Searches stand in the grounding metadata or are
    tool calls, whichever is more.
    """
    images = reported = called = 0
    for candidate in _objects(body.get("candidates")):
        if grounding := candidate.get("groundingMetadata"):
            queries = _object(grounding).get("webSearchQueries")
            reported += sum(1 for query in queries if query) if isinstance(queries, list) else 0
        for part in _objects(_object(candidate.get("content")).get("parts")):
            if "inlineData" in part:
                images += _is_image(part)
            if "toolCall" in part:
                called += _searches(part)
    return images, max(reported, called)


def _is_image(part: Mapping[str, Any]) -> bool:
    return not part.get("thought") and str(_object(part["inlineData"]).get("mimeType")).startswith("image/")


def _searches(part: Mapping[str, Any]) -> int:
    call = _object(part["toolCall"])
    if not str(call.get("toolType")).startswith("GOOGLE_SEARCH"):
        return 0
    queries = _object(call.get("args")).get("queries")
    return len(queries) if isinstance(queries, list) else 0


# An answer is upstream's word: whatever is not of the expected shape counts as absent and never raises. It is asked for
# dicts, which JSON is made of: the question whether something is a Mapping takes five times as long.
def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _EMPTY


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _count(report: Mapping[str, Any], name: str) -> int:
    value = report.get(name, 0)
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise UsageMissing(detail=f"{name} is not a count")
    return value


def _details(report: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, int] | None:
    for name in names:
        if entries := report.get(name):
            break
    else:
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageMissing(detail=f"{names[0]} is not a list of counts")
    by_modality: dict[str, int] = {}
    for entry in entries:
        modality = str(entry.get("modality", "")).lower()
        known = modality if modality in _MODALITIES else "other"
        by_modality[known] = by_modality.get(known, 0) + _count(entry, "tokenCount")
    if sum(by_modality.values()) > MAX_TOKENS:
        raise UsageMissing(detail=f"{names[0]} is more than a count can be")
    return by_modality


def _tokens(report: Mapping[str, Any], count: str, details: tuple[str, ...], flags: list[str]) -> Tokens:
    total = _count(report, count)
    by_modality = _details(report, details)
    if by_modality is None:
        return Tokens(text=total) if total else NO_TOKENS
    rest = total - sum(by_modality.values())
    if rest < 0:
        flags.append(f"{count}_below_details")
    by_modality["text"] = by_modality.get("text", 0) + max(rest, 0)
    return Tokens(**by_modality)


def _candidates(report: Mapping[str, Any], images: int, flags: list[str]) -> Tokens:
    if images and _details(report, ("candidatesTokensDetails",)) is None:
        return Tokens(image=_count(report, "candidatesTokenCount"))
    return _tokens(report, "candidatesTokenCount", ("candidatesTokensDetails",), flags)


def _cached(report: Mapping[str, Any], prompt: Tokens, flags: list[str]) -> tuple[Tokens, Tokens]:
    """Return the prompt and its cached part; the cached part fits into the prompt, modality by modality."""
    count = _count(report, "cachedContentTokenCount")
    by_modality = _details(report, ("cacheTokensDetails",)) or {}
    if not count and not by_modality:
        return prompt, NO_TOKENS
    total = max(count, sum(by_modality.values()))
    if total > prompt.total:
        flags.append("cached_above_prompt")
        return _grown(prompt, total - prompt.total), NO_TOKENS
    fitted = {name: min(tokens, getattr(prompt, name)) for name, tokens in by_modality.items()}
    if sum(fitted.values()) < sum(by_modality.values()):
        flags.append("cached_modality_above_prompt")
    rest = total - sum(fitted.values())
    for name in _CHEAPEST_FIRST:
        taken = min(rest, getattr(prompt, name) - fitted.get(name, 0))
        fitted[name] = fitted.get(name, 0) + taken
        rest -= taken
    return prompt, Tokens(**fitted)


def _grown(tokens: Tokens, more: int) -> Tokens:
    return replace(tokens, text=tokens.text + more)


def _unexplained(report: Mapping[str, Any], explained: int, flags: list[str]) -> int:
    if "totalTokenCount" not in report:
        return 0
    total = _count(report, "totalTokenCount")
    if total != explained:
        flags.append("total_above_parts" if total > explained else "total_below_parts")
    return max(total - explained, 0)


def _reported_tier(report: Mapping[str, Any]) -> str | None:
    tier = report.get("serviceTier")
    if tier:
        return str(tier).lower()
    return _TRAFFIC_TIERS.get(str(report.get("trafficType")))
