"""How tier "auto" judges a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from tollhouse_server.routing.complexity import DEFAULT_POINTS, AutoChoice, choose_tier
from tollhouse_server.routing.policies import AutoRouter, AutoThreshold
from tollhouse_server.routing.requirements import requirements_of

from tests.unit.routing.build import text_of

CODE = "def f(x):\n    return {k: (v + 1) for k, v in x.items() if (k > 0)};\n" * 10
ON = AutoRouter(is_enabled=True)


def judged(body: dict[str, Any], router: AutoRouter = ON) -> AutoChoice:
    return choose_tier(body, requirements_of(body), router)


def points(choice: AutoChoice) -> dict[str, int]:
    return {one.name: one.points for one in choice.features if one.points}


@pytest.mark.parametrize(
    ("body", "tier", "named"),
    [
        (text_of("Translate 'good morning' to Czech."), "flash-lite", set()),
        (text_of("Explain why this is slow, and compare two designs:\n" + CODE), "flash", {"code_percent"}),
        (text_of("hello") | {"generationConfig": {"thinkingConfig": {"thinkingLevel": "high"}}}, "flash", {"thinking"}),
        (
            text_of("Prove it step by step, and explain why.")
            | {"generationConfig": {"thinkingConfig": {"thinkingBudget": 8192}}},
            "pro",
            {"thinking", "reasoning_words"},
        ),
        (text_of("x " * 20_000), "flash", {"input_tokens"}),
    ],
)
def test_harder_requests_get_dearer_tiers(body: dict[str, Any], tier: str, named: set[str]) -> None:
    """And the features that speak for it are told."""
    found = judged(body)

    assert found.tier == tier
    assert named <= points(found).keys()


def test_a_choice_can_be_followed_by_hand() -> None:
    """The score is the sum of the points, every feature is there, the thresholds are those that were applied."""
    router = AutoRouter(
        is_enabled=True,
        points={"tools": 60, "turns": 0},
        thresholds=(AutoThreshold(tier="dear", min_score=30), AutoThreshold(tier="cheap", min_score=0)),
    )
    body = text_of("hello") | {"tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}]}

    found = judged(body, router)

    assert [one.name for one in found.features] == list(DEFAULT_POINTS)
    assert points(found) == {"tools": 36}
    assert (found.score, found.tier) == (36, "dear")
    assert [one.tier for one in found.thresholds] == ["cheap", "dear"]


def test_a_score_below_every_threshold_gets_the_lowest_tier() -> None:
    """A policy cannot leave a request without a tier."""
    router = AutoRouter(is_enabled=True, thresholds=(AutoThreshold(tier="only", min_score=90),))

    assert judged(text_of("hello"), router).tier == "only"


@given(
    some.recursive(
        some.none() | some.text() | some.integers(),
        lambda inner: (
            some.lists(inner)
            | some.dictionaries(
                some.sampled_from(
                    ("contents", "parts", "text", "tools", "generationConfig", "thinkingConfig", "thinkingBudget")
                ),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_no_body_is_too_strange_to_judge(body: Any) -> None:
    """Whatever a caller sends is judged alike twice, within the bounds of the points."""
    request = body if isinstance(body, dict) else {"contents": body}

    found = judged(request)

    assert found == judged(request)
    assert all(0 <= one.points <= DEFAULT_POINTS[one.name] for one in found.features)


def test_of_a_long_text_the_beginning_and_the_end_are_looked_at() -> None:
    """An instruction stands before what it is about, or after it."""
    filler = "word " * 5_000

    for text in ("Explain why: " + filler, filler + " Explain why."):
        assert points(judged(text_of(text)))["reasoning_words"] > 0
