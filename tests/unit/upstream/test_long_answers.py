"""Long answers: what comes out is what orjson would have found, with long media as bytes."""

from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.long_values import LongMedia
from tollhouse_server.unhurried import unhurried
from tollhouse_server.upstream import long_answers
from tollhouse_server.upstream.answers import parse

RAW = bytes(range(200)) * 3


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_answers, "LONG_BYTES", 40)
    monkeypatch.setattr(long_answers, "_PIECE_BYTES", 32)


def answer(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Build Gemini's JSON."""
    return {"candidates": [{"content": {"role": "model", "parts": [*parts]}, "index": 0}], **more}


def picture(base64: str) -> dict[str, Any]:
    """Build a part with inline media."""
    return {"inlineData": {"mimeType": "image/png", "data": base64}}


def cut(body: bytes, sizes: list[int]) -> deque[bytes]:
    """Cut a body into pieces."""
    pieces, at = deque[bytes](), 0
    for size in sizes:
        pieces.append(body[at : at + size])
        at += size
    pieces.append(body[at:])
    return pieces


def with_base64(value: Any) -> Any:
    """Write media out as JSON has them."""
    if isinstance(value, LongMedia):
        return str(value)
    if isinstance(value, dict):
        return {name: with_base64(member) for name, member in value.items()}
    return [with_base64(one) for one in value] if isinstance(value, list) else value


def media_of(body: dict[str, Any]) -> Iterator[Any]:
    """Yield what stands where inline media stand."""
    for part in body["candidates"][0]["content"]["parts"]:
        if "inlineData" in part:
            yield part["inlineData"]["data"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.sampled_from(
    ["\\" * 50, '"' * 50, "x" * 90]
)
BODIES = st.builds(
    lambda texts, raw, extra: answer(*({"text": one} for one in texts), picture(b64encode(raw).decode()), extra=extra),
    st.lists(TEXTS, max_size=3),
    st.binary(max_size=150),
    TEXTS | st.dictionaries(TEXTS, TEXTS, max_size=2),
)


@given(body=BODIES, sizes=st.lists(st.integers(0, 60), max_size=20), indented=st.booleans())
async def test_whatever_comes_in_whatever_pieces_is_understood(
    body: dict[str, Any], sizes: list[int], *, indented: bool
) -> None:
    """Escapes, quotes and pictures may be cut anywhere."""
    written = orjson.dumps(body, option=orjson.OPT_INDENT_2 if indented else None)

    found = await unhurried(long_answers.parsed(cut(written, sizes), parse))

    assert with_base64(found) == body


async def test_long_media_come_as_bytes() -> None:
    """So that nothing has to take them out of base64 again."""
    written = orjson.dumps(answer({"text": "Here."}, picture(b64encode(RAW).decode()), picture("AAAA")))

    found = await unhurried(long_answers.parsed(cut(written, [100, 7, 300]), parse))

    large, small = media_of(found)
    assert type(large) is LongMedia
    assert b"".join(large.raw) == RAW
    assert small == "AAAA"


@pytest.mark.parametrize(
    "base64",
    [
        b64encode(RAW).decode().replace("A", "-"),
        b64encode(RAW[:-1]).decode().rstrip("="),
        b64encode(RAW[:-1]).decode()[:-2] + "x=",
        "QQ==" * 40,
        "Q" * 121,
        "QUJD" * 20 + "Q===" + "QUJD" * 9,
        "QUJD" * 7 + "QUI=" + "QUJD" * 9,
    ],
)
async def test_what_base64_would_not_be_encoded_back_to_stays_text(base64: str) -> None:
    """Its caller gets what Google has sent."""
    written = orjson.dumps(answer(picture(base64)))

    found = await unhurried(long_answers.parsed(cut(written, []), parse))

    assert list(media_of(found)) == [base64]
