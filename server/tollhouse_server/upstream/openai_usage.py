"""From the `usage` of an OpenAI-compatible server to Gemini's `usageMetadata`; what is missing stays missing."""

from collections.abc import Mapping
from typing import Any


def usage_metadata(usage: object) -> dict[str, Any] | None:
    """Return the usage of a chat completion, None where it lacks a count without which nothing can be billed.

    Counts that are no numbers are passed on for the bill to refuse. OpenAI counts reasoning as part of the completion,
    Gemini counts thoughts beside the candidates. Details by kind of accepted or rejected prediction are dropped.
    """
    if not isinstance(usage, Mapping):
        return None
    prompt, completion, total = (usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    if prompt is None or (completion is None and total is None):
        return None
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    report = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "candidatesTokenCount": _without(completion, reasoning),
        "thoughtsTokenCount": reasoning,
        "totalTokenCount": total,
    }
    return {name: count for name, count in report.items() if count is not None}


def embedding_usage(usage: object) -> dict[str, Any] | None:
    """Return the usage of embeddings, which have a prompt only; None where it is not reported."""
    if not isinstance(usage, Mapping):
        return None
    prompt = usage.get("prompt_tokens", usage.get("total_tokens"))
    return None if prompt is None else {"promptTokenCount": prompt, "totalTokenCount": prompt}


def _detail(usage: Mapping[str, Any], details: str, name: str) -> Any:
    """Return a count that most servers leave out or send as 0 where there is nothing to tell; None for both."""
    inner = usage.get(details)
    return (inner.get(name) or None) if isinstance(inner, Mapping) else None


def _without(completion: Any, reasoning: Any) -> Any:
    if type(completion) is not int or type(reasoning) is not int:
        return completion
    # More reasoning than completion is counted beside it: xAI's way.
    return completion - reasoning if reasoning <= completion else completion
