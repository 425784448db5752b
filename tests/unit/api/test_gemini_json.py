"""The mapping between Gemini's REST JSON and messages loses nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from google.protobuf import json_format
from tollhouse.v1 import content_pb2, generation_pb2
from tollhouse_server.api.gemini_json import Mapper, fields
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.long_values import LongJson

from tests.recorded import RecordedExchange, recorded_exchanges

if TYPE_CHECKING:
    from google.protobuf.message import Message

MESSAGES: dict[str, tuple[type[Message], type[Message]]] = {
    "generateContent": (generation_pb2.GenerateContentRequest, generation_pb2.GenerateContentResponse),
    "streamGenerateContent": (generation_pb2.GenerateContentRequest, generation_pb2.GenerateContentResponse),
    "countTokens": (generation_pb2.CountTokensRequest, generation_pb2.CountTokensResponse),
    "batchEmbedContents": (generation_pb2.EmbedContentRequest, generation_pb2.EmbedContentResponse),
    "embedContent": (generation_pb2.EmbedContentItem, generation_pb2.EmbedContentResponse),
}


@pytest.fixture(scope="module")
def exchanges() -> list[RecordedExchange]:
    return recorded_exchanges()


def over_the_wire(body: dict[str, Any], message_type: type[Message]) -> dict[str, Any]:
    mapper = Mapper()
    wire = mapper.to_message(body, message_type).SerializeToString()
    return mapper.to_json(message_type.FromString(wire))


def same_json(one: Any, other: Any) -> bool:
    """Compare as JSON does: numbers by value, but never a boolean with a number."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def test_every_recorded_request_survives_the_way_through_a_message(exchanges: list[RecordedExchange]) -> None:
    """JSON to message to bytes to message to JSON is the identity for all 222 requests."""
    mapped = [(e.request, over_the_wire(e.request, MESSAGES[e.operation][0])) for e in exchanges]

    assert len(mapped) == 222
    assert [before for before, after in mapped if not same_json(before, after)] == []


def test_every_recorded_response_and_chunk_survives_the_way_through_a_message(
    exchanges: list[RecordedExchange],
) -> None:
    """JSON to message to bytes to message to JSON is the identity for all 279 response bodies."""
    mapped = [(body, over_the_wire(body, MESSAGES[e.operation][1])) for e in exchanges for body in e.responses]

    assert len(mapped) == 279
    assert [before for before, after in mapped if not same_json(before, after)] == []


def test_the_typed_fields_know_every_member_that_google_answers(exchanges: list[RecordedExchange]) -> None:
    """No recorded answer of 200 needs `extra`, so callers find everything under typed names."""
    mapper = Mapper()
    answers = [(e.operation, body) for e in exchanges if e.status == 200 for body in e.responses]

    messages = [mapper.to_message(body, MESSAGES[operation][1]) for operation, body in answers]

    assert [message for message in messages if "extra {" in str(message)] == []


def test_reported_totals_are_the_sum_of_their_parts(exchanges: list[RecordedExchange]) -> None:
    """Whenever Google reports a total, it is prompt + candidates + tool use + thoughts, absent parts being 0."""
    usages = [body["usageMetadata"] for e in exchanges for body in e.responses if "usageMetadata" in body]
    mapper = Mapper()
    messages = [mapper.to_message(usage, content_pb2.UsageMetadata) for usage in usages]

    reported = [usage for usage in messages if usage.HasField("total_token_count")]

    assert len(reported) == 264
    assert [usage for usage in reported if usage.total_token_count != sum_of_parts(usage)] == []


def test_a_missing_total_means_an_embedding_or_a_call_without_any_count(exchanges: list[RecordedExchange]) -> None:
    """A usage without total is the input count of batchEmbedContents, or has no count at all."""
    usages = [(e.operation, b["usageMetadata"]) for e in exchanges for b in e.responses if "usageMetadata" in b]

    without_total = [(operation, usage) for operation, usage in usages if "totalTokenCount" not in usage]

    for operation, usage in without_total:
        counted = any(name.endswith("TokenCount") for name in usage)
        assert operation == "batchEmbedContents" if counted else "promptTokensDetails" not in usage
    assert len(without_total) == 7


def test_modality_details_never_exceed_the_count_they_detail(exchanges: list[RecordedExchange]) -> None:
    """Details may leave a rest without a modality, but never claim more tokens than the count."""
    names = ("prompt_token", "candidates_token", "tool_use_prompt_token")
    mapper = Mapper()
    bodies = [b["usageMetadata"] for e in exchanges for b in e.responses if "usageMetadata" in b]
    usages = [mapper.to_message(body, content_pb2.UsageMetadata) for body in bodies]

    excess = [
        usage
        for usage in usages
        for name in names
        if sum(d.token_count for d in getattr(usage, f"{name}s_details")) > getattr(usage, f"{name}_count")
    ]

    assert excess == []


def sum_of_parts(usage: content_pb2.UsageMetadata) -> int:
    return (
        usage.prompt_token_count
        + usage.candidates_token_count
        + usage.tool_use_prompt_token_count
        + usage.thoughts_token_count
    )


def test_zero_and_empty_values_stay_present() -> None:
    """Index 0, an empty text, thought false and an empty object are not the same as absence."""
    body = {"candidates": [{"index": 0, "content": {"parts": [{"text": "", "thought": False}, {}]}}], "modelStatus": {}}

    mapped = over_the_wire(body, generation_pb2.GenerateContentResponse)

    assert mapped == body


def test_bytes_travel_as_bytes_and_return_as_canonical_base64() -> None:
    """Canonical base64 becomes a bytes field; any other spelling of it stays as it is, in extra."""
    mapper = Mapper()
    spellings = ["aGVsbG8=", "", "aGVsbG9=", "aGVsbG8", "_-8=", "aGVs\nbG8=", "é"]
    parts = [mapper.to_message({"thoughtSignature": text}, content_pb2.Part) for text in spellings]

    typed = [part.thought_signature for part in parts if part.HasField("thought_signature")]

    assert typed == [b"hello", b""]
    assert [mapper.to_json(part)["thoughtSignature"] for part in parts] == spellings


def test_tollhouses_own_fields_never_reach_gemini() -> None:
    """The REST body of a request holds Gemini's members only."""
    request = generation_pb2.GenerateContentRequest(
        contents=[content_pb2.Content(role="user", parts=[content_pb2.Part(text="Hi")])],
        parent="tenants/acme/departments/rnd/projects/chat",
        request_id="0d9a0e9c-51ad-4dba-9a1c-24d7f7b1f2a4",
        tier="flash",
        model="gemini-3.5-flash",
        routing=generation_pb2.RoutingOptions(region="europe-west4"),
        labels={"team": "search"},
    )

    body = Mapper().to_json(request)

    assert body == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_members_named_like_tollhouses_own_fields_are_geminis_when_they_come_in_json() -> None:
    """Vertex knows labels, too: they travel in extra and are not mistaken for chargeback labels."""
    body = {"contents": [], "labels": {"team": "search"}, "model": "models/x", "outcome": {"cost": 0}}

    message = Mapper().to_message(body, generation_pb2.GenerateContentRequest)

    assert not message.labels
    assert not message.HasField("model")
    assert Mapper().to_json(message) == body


def test_whole_numbers_in_free_form_json_come_back_as_integers() -> None:
    """Struct knows only doubles; a function argument of 5 must not reach anyone as 5.0."""
    call = {"name": "f", "args": {"count": 5, "ratio": 0.5, "list": [1, 2**53]}}

    mapped = orjson.dumps(
        over_the_wire(
            {"candidates": [{"content": {"parts": [{"functionCall": call}]}}]}, generation_pb2.GenerateContentResponse
        )
    )

    assert b'"count":5,' in mapped or b'"count":5}' in mapped
    assert str(2**53).encode() in mapped


def test_the_mapping_agrees_with_protobufs_own_json_for_plain_messages(exchanges: list[RecordedExchange]) -> None:
    """For messages without extra both directions equal json_format's."""
    mapper = Mapper()
    bodies = [b for e in exchanges if e.status == 200 for b in e.responses if e.operation == "generateContent"]

    for body in bodies:
        ours = mapper.to_message(body, generation_pb2.GenerateContentResponse)
        theirs = json_format.ParseDict(body, generation_pb2.GenerateContentResponse())
        assert ours == theirs
        assert json_format.MessageToDict(ours) == mapper.to_json(ours)


def test_long_media_are_written_as_protobufs_own_json_has_them(
    exchanges: list[RecordedExchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces, but not a character else; also where all that is bytes counts as long."""
    monkeypatch.setattr(fields, "LONG_BYTES", 0)
    mapper = Mapper()
    bodies = [b for e in exchanges if e.status == 200 for b in e.responses if e.operation == "generateContent"]
    messages = [mapper.to_message(body, generation_pb2.GenerateContentResponse) for body in bodies]

    written = [encoded(mapper.to_json(message)) for message in messages]

    assert sum(isinstance(one, LongJson) for one in written) > 10
    assert [orjson.loads(bytes(one)) for one in written] == [json_format.MessageToDict(one) for one in messages]


def test_canonical_names_leave_no_second_spelling_of_a_known_member(exchanges: list[RecordedExchange]) -> None:
    """Google takes snake_case too; after renaming, the typed fields see every known member."""
    body = {
        "generation_config": {"max_output_tokens": 5, "thinkingConfig": {"thinking_budget": 1}},
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": ""}}]}],
        "tools": [{"functionDeclarations": [{"parameters_json_schema": {"max_items": 3}}]}],
        "unknown_member": {"mime_type": 1},
    }

    renamed = Mapper().canonical(body, generation_pb2.GenerateContentRequest)

    assert renamed == {
        "generationConfig": {"maxOutputTokens": 5, "thinkingConfig": {"thinkingBudget": 1}},
        "contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": ""}}]}],
        "tools": [{"functionDeclarations": [{"parametersJsonSchema": {"max_items": 3}}]}],
        "unknown_member": {"mime_type": 1},
    }


def test_members_of_extra_are_renamed_however_deep_they_stand_and_whatever_was_read_before() -> None:
    """Only calls without such members are spared the renaming, by a mapper that has seen others."""
    mapper, plain = Mapper(), generation_pb2.GenerateContentRequest()
    plain.contents.add().parts.add().text = "hello"
    deep = generation_pb2.GenerateContentRequest()
    deep.contents.add().parts.add().extra.update({"inline_data": {"mime_type": "image/png"}})

    bodies = [mapper.to_canonical_json(request) for request in (plain, deep, plain, deep)]

    assert bodies[0] == bodies[2] == {"contents": [{"parts": [{"text": "hello"}]}]}
    assert bodies[1] == bodies[3] == {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png"}}]}]}


def test_both_spellings_of_one_member_are_refused() -> None:
    """Which one counts would be a matter of chance."""
    body = {"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": 500}}

    with pytest.raises(ValueError, match="both spellings"):
        Mapper().canonical(body, generation_pb2.GenerateContentRequest)


def test_extra_cannot_override_a_typed_field() -> None:
    """A value checked in a typed field is the value that is sent."""
    config = content_pb2.GenerationConfig(max_output_tokens=5)
    config.extra.update({"maxOutputTokens": 500})

    with pytest.raises(ValueError, match="maxOutputTokens is given both"):
        Mapper().to_json(config)


def test_recorded_streams_are_read_chunk_by_chunk(exchanges: list[RecordedExchange]) -> None:
    """The loader yields every event of a stream, whatever line separators its texts hold."""
    streams = [e for e in exchanges if e.operation == "streamGenerateContent"]

    events = sum(str(e.raw_response).count("data: {") for e in streams)

    assert events == sum(len(e.responses) for e in streams) == 71
    assert all(json.dumps(e.responses[-1]["candidates"][0]["finishReason"]) for e in streams)
