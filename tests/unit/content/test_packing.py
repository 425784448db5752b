"""What is kept of a large call is what was kept of it when it was held as one piece of JSON."""

from base64 import b64encode
from typing import Any

import orjson
from tollhouse_server.content.packing import packed, unpacked
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.long_values import LongJson, LongMedia, LongText


def test_long_media_are_left_out_as_they_were() -> None:
    """Their type, size and digest are kept; texts, and media elsewhere, are kept whole."""
    raw, text = bytes(range(256)) * 400, "prompt " * 9
    media: dict[str, Any] = {"mimeType": "image/png", "data": LongMedia((raw[:1000], raw[1000:]))}
    short = LongMedia((b"short",))
    body = {"parts": [{"inlineData": media}, {"text": LongText(text)}, {"thoughtSignature": short}]}
    plain = orjson.dumps(
        {
            "parts": [
                {"inlineData": {**media, "data": b64encode(raw).decode()}},
                {"text": text},
                {"thoughtSignature": str(short)},
            ]
        }
    )

    long = encoded(body)

    assert isinstance(long, LongJson)
    assert packed(long) == packed(plain)
    assert "omittedInlineData" in orjson.loads(unpacked(packed(long)[0]))["parts"][0]
