"""How many output tokens of a stream can have come, from whatever its chunks tell."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import UsageMissing
from tollhouse_server.generation.steps import OutputSeen
from tollhouse_server.pricing.usage import StreamUsage

from tests.recorded import recorded_exchanges


def chunk(text: str = "", **metadata: Any) -> dict[str, Any]:
    """Build a chunk that says `text` and reports `metadata`, if any."""
    body: dict[str, Any] = {"candidates": [{"content": {"parts": [{"text": text}]}}]}
    return body | ({"usageMetadata": metadata} if metadata else {})


def seen(*chunks: dict[str, Any]) -> int:
    """Return the bound after these chunks."""
    output = OutputSeen()
    for one in chunks:
        output.add(one)
    return output.tokens


def test_reported_counts_hold_and_are_those_so_far() -> None:
    """Thoughts are output too."""
    assert (
        seen(chunk("a" * 80, candidatesTokenCount=20, thoughtsTokenCount=5), chunk("b", candidatesTokenCount=30)) == 30
    )


def test_what_no_count_covers_counts_by_its_bytes() -> None:
    """Vertex reports counts with its last chunk alone; two bytes a letter are two tokens at the most."""
    assert seen(chunk("é" * 50, trafficType="ON_DEMAND"), chunk("é" * 50)) >= 200


def test_a_count_below_an_earlier_one_takes_nothing_back() -> None:
    """Recorded: (20, 419), then nothing, then (16, 28) for a second round of the same answer."""
    first, second = {"candidatesTokenCount": 20, "thoughtsTokenCount": 419}, {"candidatesTokenCount": 16}

    assert seen(chunk("x", **first), chunk("y"), chunk("z", **second)) > 439


def test_a_signature_is_not_text() -> None:
    """It is kilobytes that are no tokens."""
    part = {"text": "yes", "thoughtSignature": "A" * 10_000}

    assert seen({"candidates": [{"content": {"parts": [part]}}]}) < 100


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)))
def test_a_chunk_of_any_shape_is_taken(odd: Any) -> None:
    """An answer is the upstream's word: nothing in it may end the count."""
    shapes: list[Any] = [{"candidates": odd}, {"candidates": [{"content": odd}]}, {"usageMetadata": odd}]
    shapes += [{"candidates": [{"content": {"parts": odd}}]}, {"usageMetadata": {"candidatesTokenCount": odd}}]

    assert seen(*shapes) >= 0


def test_no_recorded_stream_of_text_used_more_than_was_seen() -> None:
    """Where the answer ends, the bound is at least what its last counts say."""
    checked = 0

    for exchange in recorded_exchanges():
        if exchange.operation != "streamGenerateContent" or exchange.status != 200:
            continue
        meter = StreamUsage()
        for one in exchange.responses:
            meter.add(one)
        try:
            used = meter.usage().output_tokens
        except UsageMissing:
            continue
        assert seen(*exchange.responses) >= used - _unexplained(exchange.responses), exchange.path
        checked += 1

    assert checked == 14


def _unexplained(chunks: tuple[dict[str, Any], ...]) -> int:
    """Return the tokens that only the total has: rounds with tools at Google, which are never held for in steps."""
    report = chunks[-1].get("usageMetadata", {})
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
    return max(0, int(report.get("totalTokenCount", 0)) - sum(int(report.get(name, 0)) for name in names))


@pytest.mark.parametrize("count", [-1, True, 3.0, "7"])
def test_a_count_that_is_none_is_not_believed(count: Any) -> None:
    """The bytes hold instead."""
    assert seen(chunk("four", candidatesTokenCount=count)) >= 4
