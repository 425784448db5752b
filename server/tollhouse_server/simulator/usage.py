"""Usage metadata whose numbers add up: total = prompt + candidates + tool use + thoughts, details = their totals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tollhouse_server.simulator.errors import JsonObject
from tollhouse_server.simulator.tokens import details

_TRAFFIC = {"standard": "ON_DEMAND", "flex": "ON_DEMAND_FLEX", "priority": "ON_DEMAND_PRIORITY"}


@dataclass(frozen=True, slots=True)
class Surface:
    """Where the call came in: Vertex names a traffic type and a time, the Developer API a service tier."""

    vertex: bool
    service_tier: str = "standard"

    def usage_mark(self) -> JsonObject:
        """Give the field that usage metadata carries for it."""
        if self.vertex:
            return {"trafficType": _TRAFFIC.get(self.service_tier, "ON_DEMAND")}
        return {"serviceTier": self.service_tier}


@dataclass(frozen=True, slots=True)
class InputCounts:
    """Tokens that went in; `cached` is a part of `prompt`."""

    prompt: Counter[str]
    cached: int = 0
    tool_use: int = 0


def usage_metadata(counts: InputCounts, *, thoughts: int, candidates: Counter[str], surface: Surface) -> JsonObject:
    """Write `usageMetadata`; counts that are zero are absent, as in the real API, except the prompt's."""
    prompt, output = counts.prompt.total(), candidates.total()
    usage: JsonObject = {"promptTokenCount": prompt}
    if counts.cached:
        usage["cachedContentTokenCount"] = counts.cached
        usage["cacheTokensDetails"] = details(Counter(TEXT=counts.cached))
    if output:
        usage["candidatesTokenCount"] = output
        usage["candidatesTokensDetails"] = details(candidates)
    if counts.tool_use:
        usage["toolUsePromptTokenCount"] = counts.tool_use
        usage["toolUsePromptTokensDetails"] = details(Counter(TEXT=counts.tool_use))
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    usage["totalTokenCount"] = prompt + output + counts.tool_use + thoughts
    usage["promptTokensDetails"] = details(counts.prompt)
    return usage | surface.usage_mark()
