"""Values that are too long to be copied at each step: they travel beside their JSON, and are written when it is sent.

Text is a str like any other; media are the bytes themselves, in base64 only while they are written. No step takes the
event loop, or the interpreter, for longer than a piece.
"""

from __future__ import annotations

from binascii import b2a_base64
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONG_BYTES: Final = 256 * 1024
"""From here on a value is long. Base64 of so much takes 0.4 ms, of 20 MB at once 70; below, pieces save nothing."""

_PIECE_BYTES: Final = 192 * 1024
"""A whole number of base64's groups of three; 256 KiB as written."""

_MARKER_BYTES: Final = 24


class LongMedia:
    """Media, which JSON writes in base64. `marker` stands for them in a message that is spliced later."""

    __slots__ = ("marker", "raw")

    def __init__(self, raw: tuple[bytes, ...]) -> None:
        self.raw = raw
        self.marker = token_bytes(_MARKER_BYTES)

    @property
    def size_bytes(self) -> int:
        """Return how much media it is."""
        return sum(map(len, self.raw))

    def __len__(self) -> int:
        """Return how many characters of base64 it is."""
        return (self.size_bytes + 2) // 3 * 4

    def __str__(self) -> str:
        return b"".join(self.written()).decode("ascii")

    def head(self, characters: int) -> str:
        """Return the first characters of the base64."""
        return b2a_base64(b"".join(self.raw[:1])[:characters], newline=False).decode("ascii")[:characters]

    def written(self) -> Iterator[bytes]:
        """Yield it as JSON has it between quotes, a piece at a time."""
        rest = b""
        for media in self.raw:
            raw = memoryview(media)
            # What is left of one part begins the next group of three.
            filled = (3 - len(rest)) % 3 if rest else 0
            if rest:
                rest += raw[:filled]
                if len(rest) < 3:
                    continue
                yield b2a_base64(rest, newline=False)
            last = len(raw) - (len(raw) - filled) % 3
            for at in range(filled, last, _PIECE_BYTES):
                yield b2a_base64(raw[at : min(at + _PIECE_BYTES, last)], newline=False)
            rest = bytes(raw[last:])
        if rest:
            yield b2a_base64(rest, newline=False)


class LongText(str):
    """A text that is written a piece at a time."""

    __slots__ = ("size_bytes",)

    size_bytes: int
    """How long it is as JSON has it between quotes."""

    def __new__(cls, text: str) -> LongText:
        """Take over a text; raise orjson.JSONEncodeError where it has half a surrogate pair."""
        made = super().__new__(cls, text)
        made.size_bytes = sum(map(len, made.written()))
        return made

    def written(self) -> Iterator[bytes]:
        """Yield it as JSON has it between quotes, a piece at a time."""
        for at in range(0, len(self), _PIECE_BYTES):
            yield orjson.dumps(self[at : at + _PIECE_BYTES])[1:-1]


class LongJson:
    """JSON of a value that has long ones in it: only what lies between those is in memory as it is sent."""

    __slots__ = ("_between", "_long", "_size_bytes", "value")

    def __init__(self, value: Any, between: list[bytes], long: list[LongMedia | LongText]) -> None:
        self.value = value
        self._between = between
        self._long = long
        sizes = [len(one) if isinstance(one, LongMedia) else one.size_bytes for one in long]
        self._size_bytes = sum(map(len, between)) + sum(sizes)

    def __len__(self) -> int:
        return self._size_bytes

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces())

    @property
    def shape(self) -> bytes:
        """Return the JSON with nothing in place of what is long."""
        return b"".join(self._between)

    def wrapped(self, opening: bytes, closing: bytes) -> LongJson:
        """Return this object within another: with something else than its first brace, and something behind it."""
        first, *others, last = self._between
        return LongJson(self.value, [opening + first[1:], *others, last + closing], self._long)

    def pieces(self) -> Iterator[bytes]:
        """Yield it from its beginning to its end."""
        yield self._between[0]
        for one, after in zip(self._long, self._between[1:], strict=True):
            yield from one.written()
            yield after


Json: TypeAlias = bytes | LongJson


def long_json(value: Any, option: int) -> LongJson:
    """Return JSON as orjson writes it with these options.

    Raises:
        TypeError: it has something that orjson does not write, an integer beyond 64 bits say.
    """
    long: list[LongMedia | LongText] = []

    def noted(one: Any) -> orjson.Fragment:
        if not isinstance(one, LongMedia | LongText):
            raise TypeError
        long.append(one)
        return _PLACE

    written = orjson.dumps(value, default=noted, option=option | orjson.OPT_PASSTHROUGH_SUBCLASS)
    return LongJson(value, written.split(b"\0"), long)


# No JSON has this byte: a character of that code is written as an escape.
_PLACE: Final = orjson.Fragment(b'"\0"')


def lengthen(value: Any) -> None:
    """Put a LongText in the place of each long text within a JSON value, which is changed."""
    members = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    for key, member in members:
        if type(member) is str:
            if len(member) > LONG_BYTES:
                value[key] = LongText(member)
        elif type(member) is dict or type(member) is list:
            lengthen(member)


def answered_media(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each piece of inline media in the candidates of an answer."""
    candidates = body.get("candidates")
    for candidate in candidates if type(candidates) is list else ():
        content = candidate.get("content") if type(candidate) is dict else None
        parts = content.get("parts") if type(content) is dict else None
        for part in parts if type(parts) is list else ():
            blob = part.get("inlineData") if type(part) is dict else None
            if type(blob) is dict:
                yield blob
