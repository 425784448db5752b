"""Long values: what is written in pieces is byte for byte what was written at once."""

import hashlib
import json
from base64 import b64encode
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server import long_values
from tollhouse_server.generation.calls import GenerationCall
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.long_values import LONG_BYTES, LongJson, LongMedia, LongText, lengthen
from tollhouse_server.upstream.protocol import Method

from tests.drivers.ledger import SCOPE

ROUND_TRIPS = "a\0b", '"\\\n', "é€\U0001f600", "<end>", ""


def call_with(body: dict[str, Any]) -> GenerationCall:
    """Build a call."""
    return GenerationCall(
        scope=SCOPE, request_id=UUID(int=1), method=Method.GENERATE, tier="flash", model=None, body=body, deadline=0.0
    )


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_values, "_PIECE_BYTES", 12)


@given(parts=st.lists(st.binary(max_size=40), max_size=6))
def test_media_are_written_as_their_base64_however_they_came(parts: list[bytes]) -> None:
    """The bounds of the parts do not show."""
    media = LongMedia(tuple(parts))

    written = b"".join(media.written())

    assert written == b64encode(b"".join(parts))
    assert (len(media), str(media)) == (len(written), written.decode())


@given(raw=st.binary(min_size=60, max_size=80))
def test_the_head_of_media_is_that_of_their_base64(raw: bytes) -> None:
    """It tells what kind of sound it is, and so its price."""
    assert LongMedia((raw,)).head(64) == b64encode(raw).decode()[:64]


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_text_is_written_as_orjson_writes_it(text: str) -> None:
    """Escapes included, wherever a piece ends; and it is still that text."""
    long = LongText(text)

    assert b"".join(long.written()) == orjson.dumps(text)[1:-1]
    assert (long.size_bytes, long) == (len(orjson.dumps(text)) - 2, text)


@pytest.mark.parametrize("sort_keys", [False, True])
def test_json_with_long_values_is_the_json_that_it_would_be_without(*, sort_keys: bool) -> None:
    """Also where texts have characters that stand for something on the way."""
    raw = bytes(range(256)) * 3
    plain: dict[str, Any] = {"z": [*ROUND_TRIPS, {"data": b64encode(raw).decode(), "b": 1}], "a": "\0" * 50, "m": {}}
    body = {**plain, "z": [*ROUND_TRIPS, {"data": LongMedia((raw,)), "b": 1}], "a": LongText(plain["a"])}

    found = encoded(body, sort_keys=sort_keys)

    assert isinstance(found, LongJson)
    assert bytes(found) == encoded(plain, sort_keys=sort_keys)
    assert len(found) == len(bytes(found))
    assert len(found.shape) < len(found)


def test_json_with_integers_that_orjson_refuses_is_written_whole() -> None:
    """The standard library writes those, and media as their base64."""
    found = encoded({"n": 2**70, "data": LongMedia((b"abc",)), "text": LongText("long")})

    assert json.loads(bytes(found)) == {"n": 2**70, "data": "YWJj", "text": "long"}


def test_an_object_within_another_is_written_in_pieces_too() -> None:
    """As countTokens has it."""
    body = encoded({"a": LongMedia((b"abc",))})

    assert isinstance(body, LongJson)
    assert bytes(body.wrapped(b'{"b":{"c":1,', b"}")) == b'{"b":{"c":1,"a":"YWJj"}}'


def test_long_texts_are_found_wherever_they_are() -> None:
    """Short ones stay what they are."""
    text = "x" * (LONG_BYTES + 1)
    body: dict[str, Any] = {"a": [{"b": text}, text[:-1]], "c": text}

    lengthen(body)

    assert [type(one) for one in (body["a"][0]["b"], body["a"][1], body["c"])] == [LongText, str, LongText]


def test_the_fingerprint_of_a_call_does_not_depend_on_how_it_is_held() -> None:
    """A call that is sent again after an update, which holds it in another way, is the same call."""
    raw, text = bytes(100), "prompt " * 9
    plain = call_with({"contents": [{"data": b64encode(raw).decode(), "text": text}]})
    long = call_with({"contents": [{"data": LongMedia((raw,)), "text": LongText(text)}]})

    parts = [plain.method, plain.tier, plain.model, plain.scope.project_id, plain.region, {}, plain.body]
    assert long.fingerprint() == plain.fingerprint()
    assert plain.fingerprint() == hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()
