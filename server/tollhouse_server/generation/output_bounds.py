"""How much output a call may have: what its request asks for, the least it is worth sending with, and what is sent."""

from collections.abc import Mapping
from typing import Any

from tollhouse_server.generation.calls import CallNotice
from tollhouse_server.names import invalid
from tollhouse_server.pricing.ceiling import Ceiling

USEFUL_TOKENS = 64
"""Output below which an answer is not worth its prompt; who asked for less gets what he asked for or nothing."""

OPEN_THINKING_TOKENS = 1024
"""Set aside for thinking where the model decides how long it thinks: recorded answers thought for up to 790 tokens."""

_LOCAL_TOOLS = frozenset({"functionDeclarations"})


def thinking_tokens(body: Mapping[str, Any], *, can_think: bool) -> int | None:
    """Return for how many tokens the call may think before its first word; None where the model decides.

    Google says that a model may pass its thinking budget; `maxOutputTokens` is what binds.
    """
    if not can_think:
        return 0
    budget = _config(body, "thinkingConfig").get("thinkingBudget")
    return budget if isinstance(budget, int) and budget >= 0 else None


def least_output_tokens(worst: Ceiling, thinking: int | None) -> int:
    """Return the smallest output bound, per candidate, that the call is worth sending with.

    Thinking and images count against `maxOutputTokens`: a bound that they use up would be paid for an empty answer.
    """
    unseen = OPEN_THINKING_TOKENS if thinking is None else thinking
    images = -(-worst.fixed_output_tokens // worst.candidates)
    return min(worst.max_output_tokens, USEFUL_TOKENS + unseen + images)


def flows_evenly(body: Mapping[str, Any], worst: Ceiling, thinking: int | None) -> bool:
    """Tell whether the answer's tokens can be counted while they come, so that it can be held for in steps.

    They cannot where the model thinks for as long as it likes, where tools run at Google, or where the answer may hold
    more than text.
    """
    entries = body.get("tools") or []
    tools = {name for entry in entries if isinstance(entry, Mapping) for name in entry}
    modalities = {str(one).upper() for one in _config(body).get("responseModalities") or ("TEXT",)}
    return thinking is not None and not worst.images and tools <= _LOCAL_TOOLS and modalities == {"TEXT"}


def capped(body: Mapping[str, Any], max_output_tokens: int) -> Mapping[str, Any]:
    """Write the output bound that is reserved into the request, so that it binds upstream too."""
    config = _config(body)
    if config.get("maxOutputTokens") == max_output_tokens:
        return body
    return {**body, "generationConfig": {**config, "maxOutputTokens": max_output_tokens}}


def clamp_notice(requested: object, granted: int, *, limit: str = "") -> CallNotice:
    """Tell the caller that his answer may be shorter than he asked for; `limit` is the one that had no room for it."""
    because = f"; limit {limit} has no room for more" if limit else ", the most that the model writes"
    return CallNotice(
        code="MAX_OUTPUT_TOKENS_CLAMPED",
        message=f"maxOutputTokens was lowered from {requested} to {granted}{because}.",
        metadata={"requested": str(requested), "granted": str(granted)} | ({"limit": limit} if limit else {}),
    )


def asked_output_tokens(body: Mapping[str, Any]) -> object:
    """Return the bound that the caller set himself, None for none."""
    return _config(body).get("maxOutputTokens")


def require_output_bound(body: Mapping[str, Any]) -> None:
    """Refuse a bound that leaves no room for an answer, as Gemini does.

    Raises:
        InvalidRequest: it is below 1.
    """
    asked = asked_output_tokens(body)
    if isinstance(asked, int | float) and asked < 1:
        raise invalid("generation_config.max_output_tokens", "must be at least 1")


def _config(body: Mapping[str, Any], inner: str = "") -> Mapping[str, Any]:
    config = body.get("generationConfig") or {}
    found = config.get(inner) if inner else config
    return found if isinstance(found, Mapping) else {}
