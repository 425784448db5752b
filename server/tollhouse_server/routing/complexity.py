"""Tier "auto": how hard a request looks, as points that can be read and changed; pure, the same for the same request.

It looks at the shape of the request and at a sample of its latest text, never at what a model thinks of it: quick
enough for every call, and a person can follow it. Each feature has a level from 0 to 100; its points are that share of
the most that the policy lets it add. Words are English ones: in other languages that feature adds nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tollhouse_server.routing.policies import AutoRouter, AutoThreshold
from tollhouse_server.routing.requirements import Requirements, asks_to_think

AUTO: Final = "auto"

DEFAULT_POINTS: Final[Mapping[str, int]] = {
    "input_tokens": 20,
    "turns": 10,
    "code_percent": 15,
    "reasoning_words": 20,
    "tools": 15,
    "schema": 10,
    "media": 10,
    "thinking": 40,
    "output_tokens": 10,
}
"""The most that each feature adds to the score."""

DEFAULT_THRESHOLDS: Final[tuple[AutoThreshold, ...]] = (
    AutoThreshold(tier="flash-lite", min_score=0),
    AutoThreshold(tier="flash", min_score=15),
    AutoThreshold(tier="pro", min_score=45),
)

SAMPLE_CHARACTERS: Final = 2_048
"""How much of the latest text is looked at: of a long one its beginning and its end, where instructions stand."""

_LARGE_TOKENS: Final = 8_000
_MANY_TURNS: Final = 10
_LONG_ANSWER_TOKENS: Final = 8_192
_DEEP_THINKING_TOKENS: Final = 8_192
# Signs that are rare in prose; a tenth of a text of code is easily made of them.
_CODE_SIGNS: Final = "{}()=;<>"
_CODE_FULL_PERCENT: Final = 10
_WORDS: Final = (
    "why",
    "prove",
    "derive",
    "explain",
    "compare",
    "analy",
    "step by step",
    "trade-off",
    "design",
    "optimi",
)
_LEVELS: Final[Mapping[str, int]] = {"MINIMAL": 0, "LOW": 25, "MEDIUM": 60, "HIGH": 100}


class Feature(NamedTuple):
    """One thing that was looked at: what was found, and what it added."""

    name: str
    value: int
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoChoice:
    """The tier that a score leads to, with all that led to it; `thresholds` are the lowest first."""

    tier: str
    score: int
    features: tuple[Feature, ...]
    thresholds: tuple[AutoThreshold, ...]


def choose_tier(body: Mapping[str, Any], needs: Requirements, router: AutoRouter) -> AutoChoice:
    """Return the tier for a request in Gemini's REST JSON; `needs` is what `requirements_of` says of it."""
    most = {**DEFAULT_POINTS, **router.points} if router.points else DEFAULT_POINTS
    features = tuple(
        Feature(name, value, most[name] * max(0, min(100, level)) // 100) for name, value, level in _found(body, needs)
    )
    thresholds = DEFAULT_THRESHOLDS
    if router.thresholds:
        thresholds = tuple(sorted(router.thresholds, key=lambda one: one.min_score))
    score = sum(one.points for one in features)
    reached = [one.tier for one in thresholds if score >= one.min_score]
    return AutoChoice(
        tier=reached[-1] if reached else thresholds[0].tier, score=score, features=features, thresholds=thresholds
    )


def _found(body: Mapping[str, Any], needs: Requirements) -> Iterator[tuple[str, int, int]]:
    """Yield name, value and level of every feature."""
    contents = body.get("contents")
    turns = len(contents) if isinstance(contents, list) else 1
    text = _latest_text(contents)
    tools = _count_of_tools(body.get("tools"))
    config = body.get("generationConfig")
    config = config if isinstance(config, dict) else {}
    tokens = needs.likely_input_tokens
    code = _code_percent(text)
    words = _reasoning_words(text)
    answer = config.get("maxOutputTokens")
    answer = answer if isinstance(answer, int) else 0
    has_schema = "responseSchema" in config or "responseJsonSchema" in config
    media = sum(1 for one in needs.fields if one.endswith("_INPUT"))
    thinking = _thinking_level(config.get("thinkingConfig"))
    yield "input_tokens", tokens, tokens * 100 // _LARGE_TOKENS
    yield "turns", turns, (turns - 1) * 100 // _MANY_TURNS
    yield "code_percent", code, code * 100 // _CODE_FULL_PERCENT
    yield "reasoning_words", words, words * 25
    yield "tools", tools, 50 + tools * 5 if tools else 0
    yield "schema", int(has_schema), 100 * has_schema
    yield "media", media, 50 * media
    yield "thinking", thinking, thinking
    yield "output_tokens", answer, answer * 100 // _LONG_ANSWER_TOKENS


def _latest_text(contents: Any) -> str:
    """Return the end of the conversation, at most a sample of it."""
    found: list[str] = []
    room = SAMPLE_CHARACTERS
    for content in reversed(contents if isinstance(contents, list) else [contents]):
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in reversed(parts if isinstance(parts, list) else [parts]):
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str) and text:
                found.append(text if len(text) <= room else text[: room // 2] + text[-(room // 2) :])
                room -= len(text)
                if room <= 0:
                    return "\n".join(reversed(found))
    return "\n".join(reversed(found))


def _code_percent(text: str) -> int:
    return sum(map(text.count, _CODE_SIGNS)) * 100 // len(text) if text else 0


def _reasoning_words(text: str) -> int:
    lower = text.lower()
    return sum(map(lower.count, _WORDS))


def _count_of_tools(tools: Any) -> int:
    count = 0
    for tool in tools if isinstance(tools, list) else ():
        declared = tool.get("functionDeclarations") if isinstance(tool, dict) else None
        count += len(declared) if isinstance(declared, list) else 1
    return count


def _thinking_level(thinking: Any) -> int:
    """Return how much thinking is asked for, from 0 to 100; an open budget counts as half."""
    if not isinstance(thinking, dict) or not asks_to_think(thinking):
        return 0
    budget = thinking.get("thinkingBudget")
    if isinstance(budget, int):
        return 50 if budget < 0 else min(100, budget * 100 // _DEEP_THINKING_TOKENS)
    return _LEVELS.get(str(thinking.get("thinkingLevel")).upper(), 50)
