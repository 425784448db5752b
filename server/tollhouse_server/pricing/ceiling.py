"""The worst case of a call, before it is sent: what is held against every limit.

Text is bounded by bytes (a byte-level tokenizer never makes more tokens than bytes), media by `media.py`, output by
`maxOutputTokens`, which the sender must write into the request as this module returns it. Every product is rounded up
and priced at the dearest price that could apply.

Known to be outside the bound: searches beyond `ModelBounds.grounding_queries` (Google publishes no limit); these are
charged as they are and show as settled above the ceiling.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.money import UNITS_PER_PRICE, charge_nanos_ceiling
from tollhouse_server.pricing.media import REPORTED_AS, media_of
from tollhouse_server.pricing.price import dearest_permille, tier_permille
from tollhouse_server.pricing.skus import (
    GROUNDING_PROMPT,
    GROUNDING_QUERY,
    INPUT_SKUS,
    LONG,
    OUTPUT_AUDIO,
    OUTPUT_IMAGE,
    OUTPUT_TEXT,
    THOUGHTS,
    Modality,
)
from tollhouse_server.pricing.terms import STANDARD, STANDARD_PERMILLE, ModelPrices

# What Gemini adds to a prompt of its own: turn markers, the declaration syntax of tools, a server-side tool's preamble.
_TOKENS_PER_REQUEST = 32
_TOKENS_PER_CONTENT = 8
_TOKENS_PER_TOOL = 512
# Google takes 1 to 8 candidates and refuses more.
_MOST_CANDIDATES = 8
# Ten kinds of input, three of output, thinking.
_MOST_LINES = 14
_LARGEST_CONTEXT_TOKENS = 1_048_576

# Tools that run at the caller cost nothing but their bytes; tools that run at Google put tokens into the prompt.
_LOCAL_TOOLS = frozenset({"functionDeclarations", "computerUse"})
_PROMPTING_TOOLS = frozenset({"codeExecution", "urlContext", "fileSearch"})
_SEARCHING_TOOLS = frozenset({"googleSearch", "googleSearchRetrieval"})
_NO_TOOLS: frozenset[str] = frozenset()
_TEXT = (Modality.TEXT,)
_TOOL_USE_MODALITIES = (Modality.TEXT, Modality.IMAGE, Modality.DOCUMENT)


_Part: TypeAlias = tuple[int, tuple[Modality, ...]]
"""The most tokens of one part of a prompt, and the modalities that they may be reported as, the sent one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBounds:
    """What the catalogue knows of a model that bounds one call to it.

    `tool_prompt_tokens` is the most that tools run at Google may put into the prompt; None means a whole context.
    """

    input_token_limit: int
    output_token_limit: int
    images_per_answer: int = 0
    grounding_queries: int = 0
    tool_prompt_tokens: int | None = None


class Ceiling(NamedTuple):
    """The most that a call can use and cost.

    `max_output_tokens` is what the request must say upstream, per candidate (0 for an embedding). `fixed_nanos` is the
    part of the cost that does not depend on it; the rest is at most `output_nanos_per_million` a token and candidate.
    """

    input_tokens: int
    output_tokens: int
    images: int
    cost_nanos: int
    max_output_tokens: int
    fixed_nanos: int
    output_nanos_per_million: int
    candidates: int
    fixed_output_tokens: int

    def clamped_to(self, cost_nanos: int | None, output_tokens: int | None = None) -> "Ceiling | None":
        """Return the ceiling with its output cut to what these amounts afford; None if that leaves no output.

        None as an amount means that nothing bounds it. The largest output that fits is chosen.
        """
        most = min(self._affordable(cost_nanos), self._fitting(output_tokens), self.max_output_tokens)
        return self if most == self.max_output_tokens else self.with_output(most)

    def _affordable(self, cost_nanos: int | None) -> int:
        """Return the largest `max_output_tokens` whose cost fits, 0 for none."""
        if cost_nanos is None or cost_nanos >= self.cost_nanos:
            return self.max_output_tokens
        per_million = self.output_nanos_per_million * self.candidates
        if per_million == 0 or cost_nanos < self.fixed_nanos:
            return 0
        return (cost_nanos - self.fixed_nanos) * UNITS_PER_PRICE // per_million

    def _fitting(self, output_tokens: int | None) -> int:
        """Return the largest `max_output_tokens` whose tokens fit, 0 for none."""
        if output_tokens is None or output_tokens >= self.output_tokens:
            return self.max_output_tokens
        return max(0, output_tokens - self.fixed_output_tokens) // self.candidates

    def with_output(self, max_output_tokens: int) -> "Ceiling | None":
        """Return the ceiling of the same call with another output bound; None for a bound of nothing."""
        if max_output_tokens < 1:
            return None
        variable = charge_nanos_ceiling(max_output_tokens * self.candidates, self.output_nanos_per_million)
        return self._replace(
            max_output_tokens=max_output_tokens,
            output_tokens=self.fixed_output_tokens + max_output_tokens * self.candidates,
            cost_nanos=self.fixed_nanos + variable,
        )


def ceiling(
    prices: ModelPrices,
    bounds: ModelBounds,
    request: Mapping[str, Any],
    *,
    request_bytes: int,
    output_cap_tokens: int,
    cached_content_tokens: int | None = None,
) -> Ceiling:
    """Bound a generateContent or streamGenerateContent request.

    Args:
        prices: the model's prices at the moment of the call.
        bounds: the model's own limits.
        request: the REST JSON that will be sent, keys in either of Google's spellings.
        request_bytes: its size as it will be sent, in UTF-8.
        output_cap_tokens: what holds where the request sets no `maxOutputTokens`.
        cached_content_tokens: size of the explicit cache that the request names; None means unknown: a whole context.

    Raises:
        ModelUnpriced: something that the request asks for has no price; it must not be sent.
    """
    config = _object(request, "generationConfig", "generation_config")
    tools = _tools(request)
    parts = _parts(
        request,
        config,
        request_bytes,
        context_tokens=bounds.input_token_limit,
        cached_tokens=_cached_tokens(request, bounds, cached_content_tokens),
    )
    prompt_tokens = sum([tokens for tokens, _ in parts])
    tool_use_tokens = _tool_use_tokens(bounds) if tools and tools - _LOCAL_TOOLS else 0
    rates = _rates(prices, request, input_tokens=prompt_tokens + tool_use_tokens)
    candidates = min(max(1, _whole(config, "candidateCount", "candidate_count")), _MOST_CANDIDATES)
    images = _images(rates, bounds, config) * candidates
    image_tokens = images * _tokens_per_image(prices, config) if images else 0
    max_output = _whole(config, "maxOutputTokens", "max_output_tokens") or output_cap_tokens
    max_output = max(1, min(max_output, bounds.output_token_limit))
    output_rate = rates.with_surcharge(rates.output(config))
    fixed = rates.prompt_nanos(parts) + _grounding_nanos(rates, bounds, tools) + rates.rounding_nanos
    if tool_use_tokens:
        fixed += charge_nanos_ceiling(tool_use_tokens, rates.dearest_input(_TOOL_USE_MODALITIES))
    if images:
        fixed += charge_nanos_ceiling(image_tokens, rates.tokens(OUTPUT_IMAGE))
    fixed = rates.with_surcharge(fixed)
    return Ceiling(
        input_tokens=prompt_tokens + tool_use_tokens,
        output_tokens=max_output * candidates + image_tokens,
        images=images,
        cost_nanos=fixed + charge_nanos_ceiling(max_output * candidates, output_rate),
        max_output_tokens=max_output,
        fixed_nanos=fixed,
        output_nanos_per_million=output_rate,
        candidates=candidates,
        fixed_output_tokens=image_tokens,
    )


def ceiling_of_embedding(prices: ModelPrices, request: Mapping[str, Any], *, request_bytes: int) -> Ceiling:
    """Bound an embedContent or batchEmbedContents request; it has no output.

    Raises:
        ModelUnpriced: a medium in it has no price.
    """
    config = _object(request, "generationConfig", "generation_config")
    parts = _parts(request, config, request_bytes, context_tokens=_LARGEST_CONTEXT_TOKENS, cached_tokens=0)
    tokens = sum(most for most, _ in parts)
    rates = _rates(prices, request, input_tokens=tokens)
    cost_nanos = rates.with_surcharge(rates.prompt_nanos(parts) + rates.rounding_nanos)
    return Ceiling(
        input_tokens=tokens,
        output_tokens=0,
        images=0,
        cost_nanos=cost_nanos,
        max_output_tokens=0,
        fixed_nanos=cost_nanos,
        output_nanos_per_million=0,
        candidates=1,
        fixed_output_tokens=0,
    )


class _Rates:
    """The dearest nano-dollars per million that each SKU can be charged at in a call; remembers what it was asked for.

    `rounding_nanos` is the most that rounding each line on its own can add. A call of the tier flex may be served, and
    charged, as standard.
    """

    __slots__ = ("_may_be_long", "_permille", "_tokens", "_written", "prices", "rounding_nanos")

    def __init__(self, prices: ModelPrices, tier: str, *, may_be_long: bool) -> None:
        self.prices = prices
        self.rounding_nanos = 0 if tier in prices.whole_tiers else _MOST_LINES
        factor = tier_permille(prices, tier)
        self._permille = max(STANDARD_PERMILLE, dearest_permille(prices) if factor is None else factor)
        self._may_be_long = may_be_long
        self._tokens: dict[str, int] = {}
        self._written = 0

    def tokens(self, sku: str) -> int:
        """Return a token SKU's rate, the long one if the prompt may be long."""
        found = self._tokens.get(sku)
        if found is None:
            found = self._tokens[sku] = self._dearest(sku)
        return found

    def _dearest(self, sku: str) -> int:
        nanos = self.prices.nanos(sku)
        if nanos is None:
            raise ModelUnpriced(model=self.prices.model, sku=sku)
        if self._may_be_long:
            nanos = max(nanos, self.prices.nanos(sku + LONG) or 0)
        return -(-nanos * self._permille // STANDARD_PERMILLE)

    def with_surcharge(self, nanos: int) -> int:
        """Return an amount or a rate with the surcharge of the way, rounded up.

        Both parts of a ceiling may be raised one by one: a charge c with share s is at most c + cs rounded up, and each
        part is at least its c + cs.
        """
        surcharge = self.prices.surcharge_per_million
        return nanos + charge_nanos_ceiling(nanos, surcharge) if surcharge else nanos

    def dearest_input(self, modalities: tuple[Modality, ...]) -> int:
        """Return the highest input rate among `modalities`; those without a price cannot be reported."""
        priced = [INPUT_SKUS[one] for one in modalities if self.prices.nanos(INPUT_SKUS[one]) is not None]
        return max(self.tokens(sku) for sku in priced or [INPUT_SKUS[modalities[0]]])

    def output(self, config: Mapping[str, Any]) -> int:
        """Return the highest rate that text, thinking or speech of the answer can be charged at."""
        rate = self._written = self._written or max(self.tokens(OUTPUT_TEXT), self.tokens(THOUGHTS))
        if self.prices.nanos(OUTPUT_AUDIO) is not None and _asks_for(config, "AUDIO"):
            return max(rate, self.tokens(OUTPUT_AUDIO))
        return rate

    def prompt_nanos(self, parts: list[_Part]) -> int:
        """Price each part at the dearest modality that it can be reported as."""
        nanos = 0
        for tokens, modalities in parts:
            # The first modality is the one the caller sent: it must have a price.
            rate = self.tokens(INPUT_SKUS[modalities[0]])
            if len(modalities) > 1:
                rate = self.dearest_input(modalities)
            nanos += charge_nanos_ceiling(tokens, rate)
        return nanos


def _rates(prices: ModelPrices, request: Mapping[str, Any], *, input_tokens: int) -> _Rates:
    """Return the rates for a prompt of at most `input_tokens`."""
    tier = str(request.get("serviceTier") or request.get("service_tier") or STANDARD).lower()
    above = prices.terms.long_above_tokens
    may_be_long = above is not None and input_tokens > above
    found: _Rates | None = prices.worked_out.get(("most", tier, may_be_long))
    if found is None:
        found = _Rates(prices, tier, may_be_long=may_be_long)
        # What callers make up must not fill the memory.
        if prices.knows_tier(tier):
            prices.worked_out["most", tier, may_be_long] = found
    return found


def _tool_use_tokens(bounds: ModelBounds) -> int:
    return bounds.input_token_limit if bounds.tool_prompt_tokens is None else bounds.tool_prompt_tokens


def _cached_tokens(request: Mapping[str, Any], bounds: ModelBounds, cached_content_tokens: int | None) -> int:
    """Return the most tokens of the explicit cache that the request names: of unknown size, a whole context."""
    if not (request.get("cachedContent") or request.get("cached_content")):
        return 0
    return bounds.input_token_limit if cached_content_tokens is None else cached_content_tokens


def _parts(
    request: Mapping[str, Any],
    config: Mapping[str, Any],
    request_bytes: int,
    *,
    context_tokens: int,
    cached_tokens: int,
) -> list[_Part]:
    """Return the bounds of the text, of each medium and of the cache.

    Media without a bound of their own share one context: a longer prompt is refused upstream, for free. What has a
    bound is never cut to the context, so that the ceiling holds also where an upstream takes more than it publishes.
    """
    is_high = "mediaResolution" in config or "media_resolution" in config
    parts: list[_Part] = []
    unbounded: dict[Modality, None] = {}
    text_bytes = request_bytes
    for medium in media_of(request, is_high_resolution=is_high):
        text_bytes -= medium.base64_bytes
        parts.append((medium.max_tokens or 0, REPORTED_AS[medium.kind]))
        if medium.max_tokens is None:
            unbounded |= dict.fromkeys(REPORTED_AS[medium.kind])
    if unbounded:
        parts.append((context_tokens, tuple(unbounded)))
    if cached_tokens:
        parts.append((cached_tokens, tuple(Modality)))
    parts.append((max(text_bytes, 0) + _overhead_tokens(request), _TEXT))
    return parts


def _overhead_tokens(request: Mapping[str, Any]) -> int:
    contents = sum([len(value) for name in ("contents", "requests") if isinstance(value := request.get(name), list)])
    return _TOKENS_PER_REQUEST + _TOKENS_PER_CONTENT * contents + _TOKENS_PER_TOOL * len(_tools(request))


def _tools(request: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the tools that are switched on, in lowerCamel spelling."""
    tools = request.get("tools")
    if not tools:
        return _NO_TOOLS
    entries = [tools] if isinstance(tools, Mapping) else tools if isinstance(tools, list) else []
    return frozenset(_camel(name) for entry in entries if isinstance(entry, Mapping) for name in entry)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _grounding_nanos(rates: _Rates, bounds: ModelBounds, tools: frozenset[str]) -> int:
    if not tools:
        return 0
    unknown = tools - _LOCAL_TOOLS - _PROMPTING_TOOLS - _SEARCHING_TOOLS
    if unknown:
        raise ModelUnpriced(model=rates.prices.model, sku=f"tool {min(unknown)}")
    if not tools & _SEARCHING_TOOLS:
        return 0
    per_query, per_prompt = rates.prices.nanos(GROUNDING_QUERY), rates.prices.nanos(GROUNDING_PROMPT)
    if per_query is None and per_prompt is None:
        raise ModelUnpriced(model=rates.prices.model, sku=GROUNDING_QUERY)
    return charge_nanos_ceiling(bounds.grounding_queries, per_query or 0) + charge_nanos_ceiling(1, per_prompt or 0)


def _images(rates: _Rates, bounds: ModelBounds, config: Mapping[str, Any]) -> int:
    if rates.prices.nanos(OUTPUT_IMAGE) is None or not _asks_for(config, "IMAGE"):
        return 0
    return bounds.images_per_answer


def _asks_for(config: Mapping[str, Any], modality: str) -> bool:
    """Tell whether an answer may hold `modality`: where the request names none, the model chooses."""
    asked = config.get("responseModalities") or config.get("response_modalities") or [modality]
    return modality in {str(one).upper() for one in (asked if isinstance(asked, list) else [asked])}


def _tokens_per_image(prices: ModelPrices, config: Mapping[str, Any]) -> int:
    sizes = prices.terms.tokens_per_image
    image_config = _object(config, "imageConfig", "image_config")
    size = str(image_config.get("imageSize") or image_config.get("image_size") or "1K").upper()
    return sizes.get(size) or max(sizes.values(), default=0)


def _object(request: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the object under any of `names`; both spellings at once are merged, for Google may read either."""
    found = [value for name in names if (value := request.get(name)) is not None and isinstance(value, Mapping)]
    if len(found) == 1:
        return found[0]
    merged: dict[str, Any] = {}
    for value in found:
        merged.update(value)
    return merged


def _whole(config: Mapping[str, Any], *names: str) -> int:
    """Return the largest whole number under any of `names`, 0 for none: Google reads "8" and 8.0 as 8 too."""
    values = [0]
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        try:
            values.append(int(value or 0))
        except (TypeError, ValueError, OverflowError):
            continue
    return max(values)
