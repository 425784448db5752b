"""Answers as pure functions of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse_server.simulator.answers import Answer, answer
from tollhouse_server.simulator.errors import GeminiError
from tollhouse_server.simulator.models import Model, ModelList
from tollhouse_server.simulator.prompts import Prompt
from tollhouse_server.simulator.streaming import chunks
from tollhouse_server.simulator.tokens import MODALITIES, text_tokens
from tollhouse_server.simulator.usage import Surface
from tollhouse_server.simulator.wire import read_message

from tests.recorded import recorded_exchanges

FUNCTION = {"name": "book", "parameters": {"type": "OBJECT", "properties": {"cart": {"type": "STRING"}}}}


def model(model_id: str = "gemini-3.5-flash") -> Model:
    found = ModelList.load().get(model_id)
    assert found is not None
    return found


def ask(text: str, *, model_id: str = "gemini-3.5-flash", vertex: bool = False, **request: Any) -> Answer:
    body = {"contents": [{"role": "user", "parts": [{"text": text}]}], **request}
    read = read_message(json.dumps(body).encode(), "GenerateContentRequest")
    return answer(Prompt.read(read, model_id), model(model_id), surface=Surface(vertex))


def assert_adds_up(usage: dict[str, Any]) -> None:
    total = sum(usage.get(f"{name}TokenCount", 0) for name in ("prompt", "candidates", "toolUsePrompt", "thoughts"))
    assert usage["totalTokenCount"] == total
    pairs = {
        "promptTokensDetails": "promptTokenCount",
        "candidatesTokensDetails": "candidatesTokenCount",
        "toolUsePromptTokensDetails": "toolUsePromptTokenCount",
        "cacheTokensDetails": "cachedContentTokenCount",
    }
    for detail, count in pairs.items():
        assert sum(each["tokenCount"] for each in usage.get(detail, [])) == usage.get(count, 0), detail
        assert {each["modality"] for each in usage.get(detail, [])} <= set(MODALITIES)
    assert usage.get("cachedContentTokenCount", 0) <= usage["promptTokenCount"]


def text_of(whole: Answer, index: int = 0) -> str:
    return "".join(piece.part.get("text", "") for piece in whole.candidates[index].pieces)


REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"text": "Hello"},
    "japanese": {"text": "料金所はどこですか"},
    "vertex": {"text": "Hello", "vertex": True},
    "no thinking": {"text": "Hello", "generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}},
    "deep thinking": {"text": "Hello", "generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}},
    "tools": {"text": "Book", "tools": [{"functionDeclarations": [FUNCTION]}]},
    "parallel calls": {"text": "Book [[calls:3]]", "tools": [{"functionDeclarations": [FUNCTION]}]},
    "search": {"text": "News", "tools": [{"googleSearch": {}}]},
    "code": {"text": "Sum", "tools": [{"codeExecution": {}}]},
    "files": {"text": "Find", "tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/a"]}}]},
    "urls": {"text": "Read https://example.com/x", "tools": [{"urlContext": {}}]},
    "cache": {"text": "Go on", "cachedContent": "cachedContents/abc"},
    "block": {"text": "No [[block:PROHIBITED_CONTENT]]"},
    "finish": {"text": "No [[finish:SAFETY]]"},
    "cut": {"text": "Long", "generationConfig": {"maxOutputTokens": 5}},
    "candidates": {"text": "Two", "generationConfig": {"candidateCount": 2}},
    "image": {"text": "Draw", "model_id": "gemini-2.5-flash-image"},
    "image only": {
        "text": "Draw",
        "model_id": "gemini-3-pro-image",
        "generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": {"imageSize": "4K"}},
    },
    "images": {"text": "Draw [[images:3]]", "model_id": "gemini-nano-banana-2.1"},
    "full structured": {
        "text": "[[full]]",
        "generationConfig": {"responseMimeType": "application/json", "maxOutputTokens": 200},
    },
    "media": {
        "text": "What?",
        "systemInstruction": {"parts": [{"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}}]},
    },
}


@pytest.mark.parametrize("name", REQUESTS)
def test_usage_adds_up_in_the_whole_and_in_every_chunk(name: str) -> None:
    """Total = prompt + candidates + tool use + thoughts; details = their totals; the last chunk = the whole."""
    whole = ask(**REQUESTS[name])

    streamed = chunks(whole)

    for body in (whole.body(), *streamed):
        assert_adds_up(body["usageMetadata"])
    assert streamed[-1]["usageMetadata"] == whole.usage


@pytest.mark.parametrize("name", REQUESTS)
def test_equal_requests_have_equal_answers(name: str) -> None:
    """Nothing but the request decides; only Vertex' createTime is the clock's."""
    one, two = ask(**REQUESTS[name]).body(), ask(**REQUESTS[name]).body()

    one.pop("createTime", None)
    two.pop("createTime", None)
    assert one == two


@given(tokens=st.integers(1, 3_000), text=st.text(max_size=40).filter(lambda text: "[" not in text))
@settings(max_examples=60, deadline=None)
def test_the_tokens_marker_is_met_exactly(tokens: int, text: str) -> None:
    """`[[tokens:N]]` gives N candidate tokens, and the text counts as N."""
    whole = ask(f"{text} [[tokens:{tokens}]]")

    assert whole.usage["candidatesTokenCount"] == tokens
    assert text_tokens(text_of(whole)) == tokens


@given(
    limit=st.integers(1, 2_000),
    count=st.integers(1, 3),
    model_id=st.sampled_from(["gemini-2.5-pro", "gemini-2.0-flash"]),
)
@settings(max_examples=60, deadline=None)
def test_full_fills_max_output_tokens_of_every_candidate(limit: int, count: int, model_id: str) -> None:
    """The worst case of a call is what it uses, thoughts inside it."""
    whole = ask("[[full]]", model_id=model_id, generationConfig={"maxOutputTokens": limit, "candidateCount": count})

    assert whole.thoughts + whole.usage["candidatesTokenCount"] == limit * count
    assert {candidate.finish_reason for candidate in whole.candidates} == {"MAX_TOKENS"}


@given(limit=st.integers(1, 400), name=st.sampled_from([name for name in REQUESTS if name != "candidates"]))
@settings(max_examples=80, deadline=None)
def test_no_answer_exceeds_max_output_tokens(limit: int, name: str) -> None:
    """Text, calls, code and images stay within the limit, thoughts included."""
    request = REQUESTS[name]
    config = {**request.get("generationConfig", {}), "maxOutputTokens": limit}

    whole = ask(**{**request, "generationConfig": config})

    assert whole.thoughts + whole.usage.get("candidatesTokenCount", 0) <= limit


@given(text=st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_a_text_never_counts_more_tokens_than_bytes(text: str) -> None:
    """UTF-8 bytes bound the count from above: the ledger's ceiling rests on it."""
    assert text_tokens(text) <= len(text.encode())


def test_a_recorded_prompt_never_counts_more_than_its_bytes() -> None:
    """Whole recorded requests of text stay below the bytes of their JSON."""
    for exchange in recorded_exchanges():
        if exchange.operation != "generateContent" or "nlineData" in json.dumps(exchange.request):
            continue
        raw = json.dumps(exchange.request).encode()
        whole = Prompt.read(read_message(raw, "GenerateContentRequest"), "gemini-2.5-flash")
        usage = answer(whole, model("gemini-2.5-flash"), surface=Surface(vertex=False)).usage
        text = sum(each["tokenCount"] for each in usage["promptTokensDetails"] if each["modality"] == "TEXT")
        assert text <= len(raw)


def test_a_stop_sequence_ends_the_text_before_itself() -> None:
    """The sequence is not part of the answer, and what is cut is not counted."""
    whole = ask("one two three STOP four [[echo]]", generationConfig={"stopSequences": ["STOP"]})

    assert text_of(whole) == "one two three "
    assert whole.usage["candidatesTokenCount"] == text_tokens("one two three ")
    assert whole.candidates[0].finish_reason == "STOP"


def test_logprobs_cover_the_whole_text() -> None:
    """Chosen tokens joined are the text; each has as many alternatives as asked for."""
    whole = ask("Hello [[tokens:5]]", generationConfig={"responseLogprobs": True, "logprobs": 3})

    result = whole.candidates[0].fields["logprobsResult"]
    assert "".join(each["token"] for each in result["chosenCandidates"]) == text_of(whole)
    assert {len(each["candidates"]) for each in result["topCandidates"]} == {3}


def test_two_candidates_differ() -> None:
    """Candidates are told apart by their index and, as a rule, by their text."""
    whole = ask("Hello", generationConfig={"candidateCount": 2})

    assert [candidate.index for candidate in whole.candidates] == [0, 1]
    assert text_of(whole, 0) != text_of(whole, 1)


def test_no_usage_hides_it_from_the_answer_only() -> None:
    """Missing usage can be met; the log's usage is still whole."""
    whole = ask("Hello [[no-usage]]")

    assert "usageMetadata" not in whole.body()
    assert all("usageMetadata" not in chunk for chunk in chunks(whole))
    assert_adds_up(whole.usage)


@pytest.mark.parametrize(
    "request_body",
    [
        {"generationConfig": {"maxOutputTokens": 0}},
        {"generationConfig": {"maxOutputTokens": "many"}},
        {"generationConfig": {"candidateCount": 99}},
        {"generationConfig": {"responseModalities": ["IMAGE"]}},
        {"generationConfig": {"responseSchema": {"type": "OBJECT"}}},
        {"generationConfig": {"responseMimeType": "application/json", "responseSchema": {"properties": 3}}},
        {"generationConfig": {"responseMimeType": "application/json", "responseSchema": {"minLength": 10**12}}},
        {"generationConfig": []},
        {"tools": [{"functionDeclaration": []}]},
        {"contents": []},
        {"contents": [{"role": "robot", "parts": []}]},
        {"contents": [{"parts": [{"inlineData": {"mimeType": "application/pdf", "data": "!"}}]}]},
        {"surprise": 1},
    ],
)
def test_a_bad_request_is_refused_as_an_invalid_argument(request_body: dict[str, Any]) -> None:
    """What the real API refuses is a 400 here, never a crash."""
    with pytest.raises(GeminiError) as refused:
        ask("Hello", **request_body)

    assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")


def test_an_image_that_does_not_fit_is_left_out() -> None:
    """An image counts its tokens or is not sent."""
    whole = ask("Draw", model_id="gemini-2.5-flash-image", generationConfig={"maxOutputTokens": 1_289})

    assert whole.image_count == 0
    assert whole.candidates[0].finish_reason == "MAX_TOKENS"


def test_snake_case_names_are_read_as_protobuf_json_reads_them() -> None:
    """Both spellings of a field's name mean the field."""
    whole = ask("Hello [[full]]", generation_config={"max_output_tokens": 7, "thinking_config": {"thinking_budget": 0}})

    assert whole.usage["candidatesTokenCount"] == 7
