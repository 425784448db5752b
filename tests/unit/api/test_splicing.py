"""Long media in a message: on the wire it is the message that protobuf would have written."""

from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tollhouse.v1 import generation_pb2
from tollhouse_server.api.gemini_json import Mapper
from tollhouse_server.api.splicing import Spliced
from tollhouse_server.long_values import LongMedia

MEDIA = st.binary(max_size=400) | st.just(bytes(70_000))


def answer(media: list[Any], text: str) -> dict[str, Any]:
    """Build Gemini's JSON with media between texts."""
    parts = [part for data in media for part in ({"text": text}, {"inlineData": {"mimeType": "a/b", "data": data}})]
    candidate = {"content": {"role": "model", "parts": [*parts, {"text": "."}]}, "index": 3, "avgLogprobs": -1.5}
    return {"candidates": [{"finishReason": "STOP"}, candidate], "modelVersion": "v", "usageMetadata": {"x": 1}}


@given(media=st.lists(MEDIA, max_size=3), text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_spliced_message_is_the_message(media: list[bytes], text: str) -> None:
    """Whatever their sizes, and so the lengths of the lengths around them."""
    mapper, kind = Mapper(), generation_pb2.GenerateContentResponse
    long = [LongMedia((one[:7], one[7:])) for one in media]
    expected = mapper.to_message(answer([b64encode(one).decode() for one in media], text), kind)

    spliced = Spliced(mapper.to_message(answer(long, text), kind).SerializeToString(), long)

    assert kind.FromString(spliced.SerializeToString()) == expected


def test_media_where_no_field_takes_them_are_text() -> None:
    """A part that is no object makes a list that no typed field takes."""
    mapper, media = Mapper(), LongMedia((b"abc",))
    body = {"candidates": [{"content": {"parts": [1, {"inlineData": {"data": media}}]}}]}

    message = mapper.to_message(body, generation_pb2.GenerateContentResponse)

    assert mapper.to_json(
        type(message).FromString(Spliced(message.SerializeToString(), [media]).SerializeToString())
    ) == {"candidates": [{"content": {"parts": [1, {"inlineData": {"data": "YWJj"}}]}}]}
