"""From Gemini's JSON to bytes that are worth sealing, and back: large media left out, the rest compressed."""

import base64
import binascii
import hashlib
import zlib
from typing import Any, Final

import orjson

from tollhouse_server.long_values import Json, LongJson, LongMedia

LARGEST_INLINE_CHARACTERS: Final = 64 * 1024 * 4 // 3
"""Base64 of 64 KiB: longer media is known by its digest alone."""

_LEVEL: Final = 1
"""Six times as fast as the default, for a tenth more."""

_MEDIA_KEYS: Final = ("inlineData", "inline_data")


def packed(json: Json) -> tuple[bytes, int]:
    """Return JSON compressed, and how long it was without the media that is left out."""
    lean = _without_large_media(json)
    return zlib.compress(lean, _LEVEL), len(lean)


def unpacked(content: bytes) -> bytes:
    """Return the JSON that was packed."""
    return zlib.decompress(content)


def _without_large_media(json: Json) -> bytes:
    if isinstance(json, LongJson):
        return orjson.dumps(_lean(json.value), default=str)
    if len(json) <= LARGEST_INLINE_CHARACTERS or not any(f'"{key}"'.encode() in json for key in _MEDIA_KEYS):
        return json
    try:
        return orjson.dumps(_lean(orjson.loads(json)))
    except (orjson.JSONDecodeError, TypeError):
        # Integers beyond 64 bits, which orjson cannot write: kept as it is, media and all.
        return json


def _lean(value: Any) -> Any:
    if isinstance(value, list):
        return [_lean(item) for item in value]
    if not isinstance(value, dict):
        return value
    return dict(_lean_member(name, member) for name, member in value.items())


def _lean_member(name: str, member: Any) -> tuple[str, Any]:
    if name in _MEDIA_KEYS and isinstance(member, dict):
        content = member.get("data")
        if isinstance(content, str | LongMedia) and len(content) > LARGEST_INLINE_CHARACTERS:
            return "omittedInlineData", _described(member, content)
    return name, _lean(member)


def _described(blob: dict[str, Any], content: str | LongMedia) -> dict[str, Any]:
    """Return what tells this media from any other; of the text where it is not Base64."""
    mime_type = blob.get("mimeType") or blob.get("mime_type")
    if isinstance(content, LongMedia):
        digest = hashlib.sha256()
        for piece in content.raw:
            digest.update(piece)
        return {"mimeType": mime_type, "sizeBytes": content.size_bytes, "sha256": digest.hexdigest()}
    try:
        raw = base64.b64decode(content, altchars=b"-_" if "-" in content or "_" in content else None)
    except (binascii.Error, ValueError):
        raw = content.encode()
    return {"mimeType": mime_type, "sizeBytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
