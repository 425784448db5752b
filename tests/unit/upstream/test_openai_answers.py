"""Answers of an OpenAI-compatible server as Gemini would have given them: nothing lost, nothing invented."""

from typing import Any

import pytest
from tollhouse_server.errors import UsageMissing
from tollhouse_server.pricing.usage import from_generate_body
from tollhouse_server.upstream.openai_answers import embedded, generated
from tollhouse_server.upstream.openai_refusals import refusal
from tollhouse_server.upstream.openai_usage import usage_metadata
from tollhouse_server.upstream.protocol import Broken
from tollhouse_server.upstream.refusal_bodies import refusal_body


def completion(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    first = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop", **choice}
    return {"id": "c-1", "object": "chat.completion", "model": "gemma", "choices": [first]}


def test_an_answer_keeps_all_that_it_says() -> None:
    """Thoughts, text, model, id, usage; and what Gemini has no word for stands under a name of its own."""
    body = completion({"content": "Hi", "reasoning_content": "Hm.", "annotations": [1]}, stop_reason=7)
    body |= {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, "timings": {"ms": 1}}

    answer = generated(body)

    assert answer == {
        "candidates": [
            {
                "content": {"parts": [{"text": "Hm.", "thought": True}, {"text": "Hi"}], "role": "model"},
                "index": 0,
                "finishReason": "STOP",
                "openai": {"stop_reason": 7, "annotations": [1]},
            }
        ],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
        "modelVersion": "gemma",
        "responseId": "c-1",
        "openai": {"timings": {"ms": 1}},
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "STOP"),
        ("length", "MAX_TOKENS"),
        ("content_filter", "SAFETY"),
        ("tool_calls", "STOP"),
        ("abort", "OTHER"),
        (None, "OTHER"),
    ],
)
def test_every_answer_says_why_it_ended(theirs: str | None, ours: str) -> None:
    """A reason that Gemini does not know is told in words."""
    [candidate] = generated(completion({"content": "x"}, finish_reason=theirs))["candidates"]

    assert candidate["finishReason"] == ours
    assert ("finishMessage" in candidate) == (ours == "OTHER")


def test_a_refusal_of_the_model_is_an_answer_for_safety() -> None:
    """It is said, not swallowed."""
    [candidate] = generated(completion({"content": None, "refusal": "I cannot."}))["candidates"]

    assert candidate["finishReason"] == "SAFETY"
    assert candidate["content"]["parts"] == [{"text": "I cannot."}]


def test_tool_calls_become_function_calls() -> None:
    """Arguments are an object, ids are kept; text that is no object is told as malformed."""
    good = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"n": 1}'}}
    bad = {"id": "t2", "type": "function", "function": {"name": "add", "arguments": '{"n": '}}

    [fine] = generated(completion({"tool_calls": [good]}, finish_reason="tool_calls"))["candidates"]
    [broken] = generated(completion({"tool_calls": [good, bad]}, finish_reason="tool_calls"))["candidates"]

    call = {"functionCall": {"id": "t1", "name": "add", "args": {"n": 1}}}
    assert (fine["content"]["parts"], fine["finishReason"]) == ([call], "STOP")
    assert (broken["content"]["parts"], broken["finishReason"]) == ([call], "MALFORMED_FUNCTION_CALL")
    assert 'add({"n": )' in broken["finishMessage"]


def test_log_probabilities_keep_their_alternatives() -> None:
    """Chosen tokens, the likeliest ones beside them, and the average."""
    steps = [
        {"token": "a", "id": 5, "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -2.0}]},
        {"token": "c", "logprob": -3.0, "top_logprobs": []},
    ]

    [candidate] = generated(completion({"content": "ac"}, logprobs={"content": steps}))["candidates"]

    assert candidate["avgLogprobs"] == -2.0
    assert candidate["logprobsResult"] == {
        "chosenCandidates": [
            {"token": "a", "logProbability": -1.0, "tokenId": 5},
            {"token": "c", "logProbability": -3.0},
        ],
        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2.0}]}, {"candidates": []}],
    }


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": ["x"]}, {"error": {"message": "no"}, "choices": []}])
def test_what_is_no_answer_is_broken(body: dict[str, Any]) -> None:
    """It came as a success, so it may have been charged."""
    with pytest.raises(Broken):
        generated(body)


def test_reasoning_is_counted_beside_the_answer() -> None:
    """OpenAI's completion holds the reasoning, Gemini's candidates do not; the sum stays the same."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }

    billed = from_generate_body({"usageMetadata": usage_metadata(usage)})

    assert (billed.prompt.total, billed.cached.total) == (10, 4)
    assert (billed.candidates.total, billed.thoughts_tokens) == (2, 5)
    assert billed.flags == ()


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 3}, {"completion_tokens": 3}, {"prompt_tokens": "many", "completion_tokens": 1}],
)
def test_missing_usage_is_never_zero(usage: dict[str, Any] | None) -> None:
    """What cannot be billed is looked into, not given away."""
    body = {"usageMetadata": reported} if (reported := usage_metadata(usage)) else {}

    with pytest.raises(UsageMissing):
        from_generate_body(body)


def test_embeddings_stand_in_the_order_of_their_texts() -> None:
    """The server may answer in another order; usage is the prompt's alone."""
    data = [{"index": 1, "embedding": [0.2]}, {"index": 0, "embedding": [0.1]}]
    body = {"data": data, "usage": {"prompt_tokens": 4, "total_tokens": 4}}

    assert embedded(body, count=2) == {
        "embeddings": [{"values": [0.1]}, {"values": [0.2]}],
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4},
    }
    for other in (1, 3):
        with pytest.raises(Broken):
            embedded(body, count=other)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "Too many", "type": "requests", "code": "rate_limit_exceeded"}}', "Too many"),
        (b'{"object": "error", "message": "Too many", "type": "requests"}', "Too many"),
        (b'{"detail": "Too many"}', "Too many"),
        (b'{"error": "Too many"}', "Too many"),
        (b"<html>", "HTTP 429"),
    ],
)
def test_an_error_is_told_in_geminis_shape(body: bytes, message: str) -> None:
    """Whatever way the server spells its errors, and with the time to wait."""
    refused = refusal(429, {"retry-after": "2.5"}, refusal_body(body, 429))

    assert refused.http_status == 429
    assert (refused.error["status"], refused.error["message"]) == ("RESOURCE_EXHAUSTED", message)
    assert refused.error["details"][-1]["retryDelay"] == "2.5s"


@pytest.mark.parametrize("header", ["soon", "", "Wed, 99 Nov 2026 00:00:00 GMT", "1e300"])
def test_an_unreadable_wait_is_none(header: str) -> None:
    """Nonsense does not become a delay."""
    assert "details" not in refusal(503, {"retry-after": header}, {}).error


def test_a_date_to_come_back_at_is_a_delay() -> None:
    """One that has passed means now."""
    refused = refusal(503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, {})

    assert refused.error["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0s"}]


def test_a_server_that_quotes_the_key_is_not_quoted() -> None:
    """Secrets stay out of errors."""
    said = b'{"error": {"message": "Incorrect API key: sk\\/canary"}}'

    refused = refusal(401, {}, refusal_body(said, 401, secret="sk/canary"))

    assert "canary" not in str(refused.body)
    assert refused.error["status"] == "UNAUTHENTICATED"
