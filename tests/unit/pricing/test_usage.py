"""What a call used, as read from the answers that Gemini sends."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import UsageMissing
from tollhouse_server.pricing.usage import (
    StreamUsage,
    Tokens,
    Usage,
    from_embed,
    from_generate,
    from_generate_body,
)

from tests.recorded import RecordedExchange, recorded_exchanges

GENERATING = {"generateContent", "streamGenerateContent"}


def usage_of(exchange: RecordedExchange) -> Usage:
    stream = StreamUsage()
    for chunk in exchange.responses:
        stream.add(chunk)
    return stream.usage()


def test_every_recorded_answer_adds_up_without_a_flag() -> None:
    """Whatever details the real API leaves out, prompt, answer, thinking and tool use sum to its own total."""
    served = [one for one in recorded_exchanges() if one.status == 200 and one.operation in GENERATING]

    usages = [(one, usage_of(one)) for one in served]

    assert len(usages) == 207
    for exchange, usage in usages:
        reported = exchange.responses[-1]["usageMetadata"]
        assert usage.flags == ()
        assert usage.total_tokens == reported.get("totalTokenCount", 0), exchange.path
        assert usage.cached.total == reported.get("cachedContentTokenCount", 0)


def test_recorded_embeddings_report_their_prompt_or_are_missing() -> None:
    """Embeddings spell their details in two ways or report nothing at all, which is an error and not zero."""
    embeddings = [one for one in recorded_exchanges() if "mbed" in one.operation and one.status == 200]
    read: list[int] = []

    for exchange in embeddings:
        if "usageMetadata" in exchange.responses[0]:
            read.append(from_embed(exchange.responses[0]).prompt.text)
        else:
            with pytest.raises(UsageMissing):
                from_embed(exchange.responses[0])

    assert read == [7, 7, 11, 7, 8, 1, 11]


def test_usage_of_zero_is_zero_and_not_missing() -> None:
    """A report of 0 tokens is a report; only its absence is an error."""
    assert from_generate({"promptTokenCount": 0, "totalTokenCount": 0}) == Usage()


@pytest.mark.parametrize("metadata", [None, {}, {"trafficType": "ON_DEMAND"}])
def test_usage_without_any_count_is_missing(metadata: dict[str, Any] | None) -> None:
    """No counts is no zero."""
    with pytest.raises(UsageMissing):
        from_generate(metadata)


@pytest.mark.parametrize("count", [-1, True, "12", 1.5, None, [], 2**28])
def test_a_count_that_cannot_be_one_is_missing_usage(count: Any) -> None:
    """Garbage is not read as a number of tokens."""
    with pytest.raises(UsageMissing):
        from_generate({"promptTokenCount": count})


def test_details_that_sum_to_more_than_a_count_can_be_are_missing_usage() -> None:
    """Each of them could be a count; the money for all of them would not fit into the ledger."""
    details = [{"modality": "TEXT", "tokenCount": 2**27}] * 2

    with pytest.raises(UsageMissing):
        from_generate({"promptTokenCount": 1, "promptTokensDetails": details})


def test_a_prompt_blocked_before_the_model_used_nothing() -> None:
    """Vertex blocks a prompt with a report that has no counts: it cost nothing."""
    body = {"promptFeedback": {"blockReason": "MODEL_ARMOR"}, "usageMetadata": {"trafficType": "ON_DEMAND"}}

    assert from_generate_body(body).total_tokens == 0


def test_cached_tokens_are_part_of_the_prompt() -> None:
    """The cached part never counts beside the prompt."""
    usage = from_generate({"promptTokenCount": 100, "cachedContentTokenCount": 60, "totalTokenCount": 100})

    assert (usage.prompt.total, usage.cached.total, usage.input_tokens) == (100, 60, 100)


def test_a_discount_on_more_than_the_prompt_is_not_believed() -> None:
    """More cached than prompt tokens is nonsense: all of them are charged as fresh input."""
    usage = from_generate({"promptTokenCount": 10, "cachedContentTokenCount": 60})

    assert (usage.prompt.text, usage.cached.total) == (60, 0)
    assert "cached_above_prompt" in usage.flags


def test_cached_tokens_without_details_leave_the_dear_modality_uncached() -> None:
    """Where the report does not say what was cached, the cheapest modality is taken for it."""
    details = [{"modality": "AUDIO", "tokenCount": 50}, {"modality": "TEXT", "tokenCount": 50}]

    usage = from_generate({"promptTokenCount": 100, "cachedContentTokenCount": 60, "promptTokensDetails": details})

    assert usage.cached == Tokens(text=50, audio=10)


def test_details_above_their_count_are_charged_and_flagged() -> None:
    """The larger of two contradicting figures holds."""
    usage = from_generate({"promptTokenCount": 5, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}]})

    assert usage.prompt == Tokens(audio=9)
    assert usage.flags == ("promptTokenCount_below_details",)


def test_a_total_above_its_parts_is_charged_as_thinking() -> None:
    """Tokens that Gemini counts and does not explain are not lost."""
    usage = from_generate({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 100})

    assert (usage.thoughts_tokens, usage.flags) == (85, ("total_above_parts",))


def test_a_total_below_its_parts_does_not_lower_the_charge() -> None:
    """The parts hold."""
    usage = from_generate({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 1})

    assert (usage.total_tokens, usage.flags) == (15, ("total_below_parts",))


def test_the_tokens_of_an_answer_with_images_and_no_details_are_image_tokens() -> None:
    """Image tokens are not taken for text because the details are absent."""
    image = {"inlineData": {"mimeType": "image/png", "data": ""}}
    body = {
        "candidates": [{"content": {"parts": [{"text": "here"}, image]}}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1290},
    }

    usage = from_generate_body(body)

    assert (usage.images, usage.candidates) == (1, Tokens(image=1290))


def test_images_shown_while_thinking_are_not_counted() -> None:
    """Google does not charge for the drafts of an image."""
    draft = {"thought": True, "inlineData": {"mimeType": "image/png", "data": ""}}
    body = {"candidates": [{"content": {"parts": [draft]}}], "usageMetadata": {"promptTokenCount": 5}}

    assert from_generate_body(body).images == 0


def test_a_stream_adds_images_and_keeps_the_last_counts() -> None:
    """Counts are cumulative, images come once each, and a last chunk without counts undoes nothing."""
    image = {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": ""}}]}}]}
    stream = StreamUsage()

    stream.add(image | {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 10}})
    stream.add(image | {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 20}})
    stream.add({"usageMetadata": {"trafficType": "ON_DEMAND_FLEX"}})

    usage = stream.usage()
    assert (usage.images, usage.candidates.image, usage.prompt.text) == (2, 20, 5)


def test_searches_are_counted_once_however_they_are_reported() -> None:
    """The same search stands in the grounding metadata and as a tool call; empty queries are none."""
    answers = [one for one in recorded_exchanges() if {"googleSearch": {}} in (one.request.get("tools") or [])]

    queries = [usage_of(one).grounding_queries for one in answers if one.operation in GENERATING]

    assert sorted(queries) == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["candidates", "usageMetadata", "promptFeedback", "content", "parts", "inlineData", "toolCall", "args"]
KEYS += ["promptTokenCount", "promptTokensDetails", "cacheTokensDetails", "groundingMetadata", "webSearchQueries"]
bodies = st.recursive(
    json_values,
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), bodies))
def test_garbage_is_missing_usage_and_never_a_crash(body: dict[str, Any]) -> None:
    """Whatever JSON upstream answers, it is read or refused."""
    try:
        usage = from_generate_body(body)
    except UsageMissing:
        return

    assert usage.total_tokens >= 0
