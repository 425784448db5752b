"""Streams of an OpenAI-compatible server as Gemini would have sent them."""

from typing import Any

import pytest
from tollhouse_server.upstream.openai_chunks import ChunkTranslation
from tollhouse_server.upstream.protocol import Broken

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
REPORTED = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}


def chunk(delta: dict[str, Any] | None = None, *, index: int = 0, **members: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "finish_reason": members.pop("finish", None)}
    return {"id": "c-1", "model": "gemma", "choices": [choice], **members}


def passed_on(*chunks: dict[str, Any], is_said: bool = True) -> list[dict[str, Any]]:
    translation = ChunkTranslation()
    passed = [out for each in chunks for out in translation.take(each)]
    return passed + translation.end(is_said=is_said)


def test_the_last_chunk_has_the_reason_and_the_usage() -> None:
    """As Gemini's last chunk has, though the server sends them one after the other."""
    usage = {"choices": [], "usage": USAGE, "timings": {"ms": 1}}

    first, last = passed_on(chunk({"role": "assistant"}), chunk({"content": "Hi"}), chunk(finish="stop"), usage)

    assert first["candidates"] == [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"] == REPORTED
    assert (last["modelVersion"], last["responseId"]) == ("gemma", "c-1")
    assert last["openai"] == {"timings": {"ms": 1}}


def test_text_is_passed_on_as_it_comes() -> None:
    """Only the end waits."""
    translation = ChunkTranslation()

    [passed] = translation.take(chunk({"content": "Hi"}))

    assert passed["candidates"][0]["content"]["parts"] == [{"text": "Hi"}]


def test_a_stream_without_usage_has_none() -> None:
    """Missing usage stays missing."""
    assert all("usageMetadata" not in each for each in passed_on(chunk({"content": "Hi"}), chunk(finish="stop")))


def test_usage_beside_the_words_is_passed_on_with_them() -> None:
    """Some servers report in every chunk."""
    first, last = passed_on(chunk({"content": "Hi"}, usage=USAGE), chunk(finish="length", usage=USAGE))

    assert first["usageMetadata"] == last["usageMetadata"] == REPORTED
    assert last["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_function_calls_in_pieces_are_passed_on_whole() -> None:
    """Two calls side by side, each with its id, in the last chunk."""
    pieces: list[dict[str, Any]] = [
        {"index": 0, "id": "t1", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"n":'}},
        {"index": 1, "id": "t2", "function": {"name": "look", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": " 1}"}},
    ]

    [last] = passed_on(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish="tool_calls"))

    assert last["candidates"][0]["content"]["parts"] == [
        {"functionCall": {"id": "t1", "name": "add", "args": {"n": 1}}},
        {"functionCall": {"id": "t2", "name": "look", "args": {}}},
    ]


def test_a_function_call_that_was_cut_off_is_told() -> None:
    """What came of it stands in the message."""
    piece = {"index": 0, "id": "t1", "function": {"name": "add", "arguments": '{"n'}}

    [last] = passed_on(chunk({"tool_calls": [piece]}), chunk(finish="length"))

    assert last["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert 'add({"n)' in last["candidates"][0]["finishMessage"]


@pytest.mark.parametrize("begun", [{"a": 1}, 5, True, [1]], ids=repr)
def test_arguments_in_two_forms_are_the_ones_that_came_last(begun: Any) -> None:
    """A server that sends an object and then text breaks its protocol, not our worker."""
    first = {"tool_calls": [{"index": 0, "id": "call-1", "function": {"name": "f", "arguments": begun}}]}
    second = {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}

    [last] = passed_on(chunk(first), chunk(second), chunk(finish="tool_calls"))

    assert last["candidates"][0]["content"]["parts"] == [{"functionCall": {"id": "call-1", "name": "f", "args": {}}}]


def test_candidates_end_one_by_one() -> None:
    """The end of one does not hold back the words of another, and only the last chunk is the last."""
    usage = {"choices": [], "usage": USAGE}

    passed = passed_on(
        chunk({"content": "a"}),
        chunk(finish="stop"),
        chunk({"content": "b"}, index=1),
        chunk(finish="length", index=1),
        usage,
    )

    seen = [(each["candidates"][0]["index"], each["candidates"][0].get("finishReason")) for each in passed]
    assert seen == [(0, None), (0, "STOP"), (1, None), (1, "MAX_TOKENS")]
    assert ["usageMetadata" in each for each in passed] == [False, False, False, True]


@pytest.mark.parametrize("is_said", [True, False])
def test_an_answer_that_is_finished_needs_no_last_word(*, is_said: bool) -> None:
    """Some servers leave out [DONE]."""
    assert passed_on(chunk({"content": "Hi"}), chunk(finish="stop"), is_said=is_said)


def test_a_stream_that_ends_early_is_broken() -> None:
    """Neither a reason nor [DONE]: perhaps charged, certainly not whole."""
    with pytest.raises(Broken):
        passed_on(chunk({"content": "Hi"}), is_said=False)


def test_a_stream_that_says_it_is_done_is_done() -> None:
    """A server that never gives reasons is believed."""
    *_, last = passed_on(chunk({"content": "Hi"}))

    assert last["candidates"][0]["finishReason"] == "OTHER"


@pytest.mark.parametrize("chunks", [(), ({"choices": [], "usage": USAGE},)])
def test_a_stream_without_an_answer_is_broken(chunks: tuple[dict[str, Any], ...]) -> None:
    """Usage alone is no answer."""
    with pytest.raises(Broken):
        passed_on(*chunks)


def test_an_error_amid_the_chunks_is_broken() -> None:
    """The server gave up after it had begun."""
    with pytest.raises(Broken):
        passed_on(chunk({"content": "Hi"}), {"error": {"message": "out of memory"}})
