"""Token counts by modality: plausible, deterministic, and for text never above the UTF-8 byte count.

Text: an ASCII character is a quarter of a token and any other character half a token, rounded up per text.
Media: the per-item counts that Google publishes (ai.google.dev/gemini-api/docs/tokens); seconds of sound and film come
from a WAV header, `videoMetadata`, or the size at 128 kbit/s (sound) and 1 Mbit/s (film), at least one second. A file
named only by its URI counts as one item or 30 seconds.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import orjson

from tollhouse_server.simulator.errors import JsonObject, invalid_argument
from tollhouse_server.simulator.models import Model

MODALITIES = ("TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
_QUARTERS_PER_TOKEN = 4
_IMAGE_TOKENS = {"2.5": 258, "3": 1120, "4": 1120}
_IMAGE_TOKENS_LOW = {"2.5": 64, "3": 280, "4": 280}
_AUDIO_TOKENS_PER_SECOND = 32
_VIDEO_TOKENS_PER_SECOND = 258
_PAGE_TOKENS = 258
_AUDIO_BYTES_PER_SECOND = 16_000
_VIDEO_BYTES_PER_SECOND = 125_000
_UNKNOWN_SECONDS = 30
_PDF_PAGE = re.compile(rb"/Type\s*/Page[^s]")
_CACHED_NAME = re.compile(r"tokens-(\d+)$")
_CACHED_DEFAULT = 4_096


def text_tokens(text: str) -> int:
    """Count a text's tokens."""
    if text.isascii():
        return -(-len(text) // _QUARTERS_PER_TOKEN)
    return -(-sum(map(_quarters, text)) // _QUARTERS_PER_TOKEN)


def first_tokens(text: str, count: int) -> str:
    """Give the longest beginning of a text that has at most `count` tokens."""
    limit = count * _QUARTERS_PER_TOKEN
    if text.isascii():
        return text[:limit]
    for index, quarters in enumerate(accumulate(map(_quarters, text))):
        if quarters > limit:
            return text[:index]
    return text


def split_tokens(text: str, size: int) -> list[str]:
    """Cut a text into pieces of about `size` tokens."""
    if text.isascii():
        step = max(1, size) * _QUARTERS_PER_TOKEN
        return [text[start : start + step] for start in range(0, len(text), step)]
    pieces = []
    while text:
        piece = first_tokens(text, max(1, size))
        pieces.append(piece)
        text = text[len(piece) :]
    return pieces


def prompt_tokens(body: JsonObject, model: Model) -> Counter[str]:
    """Count what a request sends in, by modality: contents, system instruction, tools, named cache."""
    counts: Counter[str] = Counter()
    contents = [*body.get("contents", ()), body.get("systemInstruction") or {}]
    for content in contents:
        counts += content_tokens(content, model, body.get("generationConfig", {}))
    for tool in body.get("tools", ()):
        for declaration in tool.get("functionDeclarations", ()):
            counts["TEXT"] += json_tokens(declaration)
    counts["TEXT"] += cached_content_tokens(body)
    return counts


def content_tokens(content: JsonObject, model: Model, config: JsonObject) -> Counter[str]:
    """Count one content by modality."""
    counts: Counter[str] = Counter()
    for part in content.get("parts", ()):
        for modality, count in _part_tokens(part, model, config):
            counts[modality] += count
    return counts


def cached_content_tokens(body: JsonObject) -> int:
    """Count a named cache: the number in a name that ends in `tokens-N`, otherwise 4,096."""
    name = body.get("cachedContent")
    if not name:
        return 0
    found = _CACHED_NAME.search(name)
    return int(found[1]) if found else _CACHED_DEFAULT


def billable_characters(body: JsonObject) -> int:
    """Count what Vertex calls billable characters: those of all texts, white space left out."""
    contents = [*body.get("contents", ()), body.get("systemInstruction") or {}]
    texts = [part.get("text", "") for content in contents for part in content.get("parts", ())]
    return sum(not character.isspace() for text in texts for character in text)


def json_tokens(value: Any) -> int:
    """Count a JSON value as its compact text."""
    return text_tokens(orjson.dumps(value).decode())


def details(counts: Counter[str]) -> list[JsonObject]:
    """Give counts as `*TokensDetails`; they add up to the counts' total."""
    return [{"modality": each, "tokenCount": counts[each]} for each in MODALITIES if counts[each]]


def decode_blob(data: str) -> bytes:
    """Decode inline data in either base64 alphabet, or raise a 400."""
    try:
        return base64.b64decode(data.replace("-", "+").replace("_", "/") + "=" * (-len(data) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Invalid value at 'inline_data.data' (TYPE_BYTES), Base64 decoding failed") from None


def _quarters(character: str) -> int:
    return 1 if character < "\x80" else 2


def _part_tokens(part: JsonObject, model: Model, config: JsonObject) -> Iterable[tuple[str, int]]:
    if part.get("text"):
        yield "TEXT", text_tokens(part["text"])
    for name in ("functionCall", "executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
        if part.get(name):
            yield "TEXT", json_tokens(part[name])
    if part.get("functionResponse"):
        response = part["functionResponse"]
        yield "TEXT", json_tokens({"name": response.get("name"), "response": response.get("response")})
        for inner in response.get("parts", ()):
            yield from _part_tokens(inner, model, config)
    media = part.get("inlineData") or part.get("fileData")
    if media:
        yield _media_tokens(media, part.get("videoMetadata", {}), model, config)


def _media_tokens(media: JsonObject, clip: JsonObject, model: Model, config: JsonObject) -> tuple[str, int]:
    kind = media.get("mimeType", "").lower()
    content = decode_blob(media["data"]) if "data" in media else None
    if kind.startswith("image/"):
        low = config.get("mediaResolution") == "MEDIA_RESOLUTION_LOW"
        return "IMAGE", (_IMAGE_TOKENS_LOW if low else _IMAGE_TOKENS)[model.family]
    if kind.startswith("audio/"):
        return "AUDIO", _AUDIO_TOKENS_PER_SECOND * _audio_seconds(content)
    if kind.startswith("video/"):
        return "VIDEO", _VIDEO_TOKENS_PER_SECOND * _video_seconds(content, clip)
    if kind == "application/pdf":
        return "DOCUMENT", _PAGE_TOKENS * max(1, len(_PDF_PAGE.findall(content or b"")))
    return "TEXT", text_tokens((content or b"").decode("utf-8", "replace")) if content else _PAGE_TOKENS


def _audio_seconds(content: bytes | None) -> int:
    if content is None:
        return _UNKNOWN_SECONDS
    per_second = _AUDIO_BYTES_PER_SECOND
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE" and len(content) >= 32:
        per_second = int.from_bytes(content[28:32], "little") or per_second
    return max(1, -(-len(content) // per_second))


def _video_seconds(content: bytes | None, clip: JsonObject) -> int:
    seconds = _UNKNOWN_SECONDS if content is None else max(1, -(-len(content) // _VIDEO_BYTES_PER_SECOND))
    start, end = _offset(clip.get("startOffset")), _offset(clip.get("endOffset"))
    if end is not None:
        return max(1, round(end - (start or 0)))
    return seconds


def _offset(value: Any) -> float | None:
    try:
        return float(str(value).removesuffix("s")) if value is not None else None
    except ValueError:
        raise invalid_argument(
            "Invalid value at 'video_metadata' (type.googleapis.com/google.protobuf.Duration)"
        ) from None
