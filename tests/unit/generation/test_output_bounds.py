"""How small a call may be made, and which streams can be held for in steps."""

import time
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.generation.calls import GenerationCall
from tollhouse_server.generation.output_bounds import OPEN_THINKING_TOKENS, USEFUL_TOKENS
from tollhouse_server.generation.plans import Planner, Stop
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.upstream.protocol import Method

from tests.drivers.generation import UpstreamAccount, catalogue_with
from tests.drivers.ledger import SCOPE

BOOK = PriceBook(1, packaged_prices().lists)
CATALOGUE = catalogue_with((UpstreamAccount(account_id="main", base_url="http://x", secrets=()),), ())
STEP = 512
NO_THINKING = {"thinkingConfig": {"thinkingBudget": 0}}


def stop_of(config: dict[str, Any], *, tier: str = "flash", method: Method = Method.STREAM, **members: Any) -> Stop:
    """Plan a call; return the first place that it may go to."""
    body = {"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": config, **members}
    call = GenerationCall(
        scope=SCOPE,
        request_id=uuid4(),
        method=method,
        tier=tier,
        model=None,
        body=body,
        deadline=time.monotonic() + 60,
    )
    planner = Planner(lambda: CATALOGUE, lambda: BOOK, output_cap_tokens=8_192, stream_step_tokens=STEP)
    plan = planner.plan(call)
    return plan.stop(plan.targets[0])


@given(
    asked=st.integers(1, 20_000),
    candidates=st.integers(1, 8),
    thinking=st.none() | st.integers(0, 5_000),
    cost=st.none() | st.integers(0, 10**9),
    tokens=st.none() | st.integers(0, 100_000),
)
def test_what_is_granted_fits_is_useful_and_is_what_is_sent(
    asked: int, candidates: int, thinking: int | None, cost: int | None, tokens: int | None
) -> None:
    """Whatever the room: the shrunk ceiling is within it, and the request says the same bound."""
    config: dict[str, Any] = {"maxOutputTokens": asked, "candidateCount": candidates}
    if thinking is not None:
        config["thinkingConfig"] = {"thinkingBudget": thinking}
    stop = stop_of(config, method=Method.GENERATE)

    shrunk = stop.shrink(cost, tokens)

    if shrunk is None:
        return
    granted = stop.clamped(shrunk.max_output_tokens, limit="tenants/acme/limits/day")
    aside = OPEN_THINKING_TOKENS if thinking is None else thinking
    assert cost is None or shrunk.ceiling.cost_nanos <= cost
    assert tokens is None or shrunk.ceiling.output_tokens <= tokens
    assert min(asked, USEFUL_TOKENS + aside) <= shrunk.max_output_tokens <= asked
    assert granted.ceiling.cost_nanos == shrunk.ceiling.cost_nanos
    assert orjson.loads(bytes(granted.body))["generationConfig"] == {
        **config,
        "maxOutputTokens": shrunk.max_output_tokens,
    }


@pytest.mark.parametrize(
    ("config", "members", "held_first"),
    [
        (NO_THINKING, {}, STEP),
        ({"thinkingConfig": {"thinkingBudget": 300}}, {}, STEP + 300),
        ({**NO_THINKING, "responseModalities": ["TEXT"]}, {}, STEP),
        (NO_THINKING, {"tools": [{"functionDeclarations": [{"name": "f"}]}]}, STEP),
        ({}, {}, 8_192),
        ({"thinkingConfig": {"thinkingBudget": -1}}, {}, 8_192),
        ({"thinkingConfig": {"thinkingLevel": "HIGH"}}, {}, 8_192),
        (NO_THINKING, {"tools": [{"codeExecution": {}}]}, 8_192),
        (NO_THINKING, {"tools": [{"functionDeclarations": [], "googleSearch": {}}]}, 8_192),
        ({**NO_THINKING, "maxOutputTokens": STEP}, {}, STEP),
        ({**NO_THINKING, "maxOutputTokens": 100}, {}, 100),
    ],
)
def test_only_a_stream_whose_tokens_can_be_counted_as_they_come_is_held_for_in_steps(
    config: dict[str, Any], members: dict[str, Any], held_first: int
) -> None:
    """Open thinking and tools at Google use tokens that nobody sees come: all is held for them at once."""
    stop = stop_of(config, **members)

    sent = orjson.loads(bytes(stop.body))["generationConfig"]["maxOutputTokens"]
    assert stop.opening.max_output_tokens == held_first
    assert bool(stop.step_tokens) == (held_first < stop.ceiling.max_output_tokens)
    assert sent == stop.ceiling.max_output_tokens


def test_a_unary_call_is_never_held_for_in_steps() -> None:
    """Its answer comes at once."""
    stop = stop_of(NO_THINKING, method=Method.GENERATE)

    assert (stop.opening, stop.step_tokens) == (stop.ceiling, 0)


def test_an_image_is_never_held_for_in_steps() -> None:
    """Its tokens come in one piece."""
    stop = stop_of(NO_THINKING, tier="flash-image")

    assert (stop.opening, stop.step_tokens) == (stop.ceiling, 0)


def test_a_clamped_stream_is_held_for_at_once() -> None:
    """What was granted is little, and binds upstream."""
    stop = stop_of(NO_THINKING)

    shrunk = stop.shrink(None, 200)

    assert shrunk is not None
    granted = stop.clamped(shrunk.max_output_tokens, limit="")
    assert shrunk.max_output_tokens == 200
    assert (granted.opening, granted.step_tokens) == (granted.ceiling, 0)
