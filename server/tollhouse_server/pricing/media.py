"""How many tokens inline media can become at most, before it is sent.

Sources (checked November 2026): ai.google.dev/gemini-api/docs/tokens, /media-resolution, /image-understanding,
/document-processing, /audio. Where a format has no floor of bytes per second, the answer is None: nothing but the
model's own context bounds it.
"""

import struct
from base64 import b64decode, urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tollhouse_server.long_values import LongMedia
from tollhouse_server.pricing.skus import Modality

# Images are scaled to fit 3,072 x 3,072 and cut into tiles of 256 to 768 pixels, 258 tokens each: at worst 12 x 2
# tiles (a strip) and the whole image once more. Gemini 3's highest media resolution takes 2,240, which is less.
IMAGE_TOKENS = (12 * 2 + 1) * 258
AUDIO_TOKENS_PER_SECOND = 32
# MPEG audio layer III knows no bit rate below 8 kbit/s.
MP3_BYTES_PER_SECOND = 1_000
# At most 1,000 pages a document; compressed object streams leave no useful floor of bytes per page. A page is 258
# tokens up to Gemini 2.5; from Gemini 3 on 560 at the default media resolution and 1,120 at the highest.
PDF_MAX_PAGES = 1_000
PDF_TOKENS_PER_PAGE = 560
PDF_TOKENS_PER_PAGE_HIGH = 1_120
_PDF_MIN_BYTES_PER_PAGE = 8
_HEADER_BYTES = 48

# What each kind of media may be reported, and so charged, as.
REPORTED_AS: Mapping[str, tuple[Modality, ...]] = {
    "image": (Modality.IMAGE,),
    "audio": (Modality.AUDIO,),
    "video": (Modality.VIDEO, Modality.AUDIO, Modality.IMAGE),
    "document": (Modality.DOCUMENT, Modality.IMAGE),
    "text": (Modality.TEXT, Modality.DOCUMENT),
    "unknown": tuple(Modality),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """One piece of media in a request: its kind (a key of REPORTED_AS), the base64 it takes, its bound (None: none)."""

    kind: str
    base64_bytes: int
    max_tokens: int | None


def media_of(request: Mapping[str, Any], *, is_high_resolution: bool) -> Iterator[Medium]:
    """Yield every piece of media in a generateContent or embedding request, in either spelling of its keys."""
    for content in _contents(request):
        for part in _list(content.get("parts")):
            if len(part) == 1 and "text" in part:
                continue
            yield from _media_of_part(part, is_high_resolution=is_high_resolution)


def _contents(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in ("contents", "content", "systemInstruction", "system_instruction"):
        if (found := request.get(name)) is not None:
            yield from _list(found)
    for single in _list(request.get("requests")):
        yield from _list(single.get("content"))


def _media_of_part(part: Mapping[str, Any], *, is_high_resolution: bool) -> Iterator[Medium]:
    is_high_resolution = is_high_resolution or "mediaResolution" in part or "media_resolution" in part
    for name in ("inlineData", "inline_data"):
        for blob in _list(part.get(name)):
            yield _inline(blob, is_high_resolution=is_high_resolution)
    for name in ("fileData", "file_data"):
        for file in _list(part.get(name)):
            kind = _kind(str(file.get("mimeType") or file.get("mime_type") or ""))
            yield Medium(kind=kind, base64_bytes=0, max_tokens=None)
    for name in ("functionResponse", "function_response"):
        for answer in _list(part.get(name)):
            for inner in _list(answer.get("parts")):
                yield from _media_of_part(inner, is_high_resolution=is_high_resolution)


def _list(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in `value`: proto JSON takes a single object where a list is due."""
    if isinstance(value, list):
        # Asked for a dict first, which it nearly always is: whether something is a Mapping takes five times as long.
        return [item for item in value if type(item) is dict or isinstance(item, Mapping)]
    return [value] if isinstance(value, Mapping) else []


def _kind(mime_type: str) -> str:
    family = mime_type.partition("/")[0].lower()
    if family in {"image", "audio", "video", "text"}:
        return family
    return "document" if mime_type.lower() == "application/pdf" else "unknown"


def _inline(blob: Mapping[str, Any], *, is_high_resolution: bool) -> Medium:
    data = blob.get("data")
    base64: str | LongMedia = data if isinstance(data, str | LongMedia) else ""
    size = len(base64) * 3 // 4
    kind = _kind(str(blob.get("mimeType") or blob.get("mime_type") or ""))
    bound: int | None
    match kind:
        case "image":
            bound = IMAGE_TOKENS
        case "document":
            bound = _pdf_tokens(size, is_high_resolution=is_high_resolution)
        case "audio":
            bound = _audio_tokens(_head(base64), size)
        case "text":
            bound = size
        case _:
            bound = None
    return Medium(kind=kind, base64_bytes=len(base64), max_tokens=bound)


def _pdf_tokens(size: int, *, is_high_resolution: bool) -> int:
    pages = min(PDF_MAX_PAGES, size // _PDF_MIN_BYTES_PER_PAGE + 1)
    return pages * (PDF_TOKENS_PER_PAGE_HIGH if is_high_resolution else PDF_TOKENS_PER_PAGE)


def _head(base64: str | LongMedia) -> bytes:
    characters = _HEADER_BYTES * 4 // 3
    head = base64[:characters] if isinstance(base64, str) else base64.head(characters)
    try:
        return urlsafe_b64decode(head) if "-" in head or "_" in head else b64decode(head)
    except Base64Error:
        return b""


def _audio_tokens(head: bytes, size: int) -> int | None:
    """Bound audio by what its first bytes say it is, not by the type that the caller claims."""
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        bytes_per_second = MP3_BYTES_PER_SECOND
    else:
        bytes_per_second = _pcm_bytes_per_second(head)
    if not bytes_per_second:
        return None
    return (size // bytes_per_second + 1) * AUDIO_TOKENS_PER_SECOND


def _pcm_bytes_per_second(head: bytes) -> int:
    """Return the lower of the two rates that an uncompressed WAV file's header gives, 0 for anything else."""
    if len(head) < 36 or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return 0
    codec, _channels, samples_per_second, bytes_per_second, block = struct.unpack_from("<HHIIH", head, 20)
    return int(min(samples_per_second * block, bytes_per_second)) if codec == 1 else 0
