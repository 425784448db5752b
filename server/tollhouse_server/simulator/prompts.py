"""A parsed generate request with what an answer is drawn from: its digest, its text, its markers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import orjson

from tollhouse_server.simulator.errors import JsonObject, invalid_argument

_MARKER = re.compile(r"\[\[([a-z-]+)(?::([A-Za-z0-9_]{1,40}))?\]\]")
_Choice = TypeVar("_Choice")


@dataclass(frozen=True, slots=True)
class Dice:
    """Choices that depend only on a digest and a name: the same request gets the same answer."""

    digest: bytes

    def draw(self, name: str) -> int:
        """Give 64 bits for that name."""
        return int.from_bytes(hashlib.blake2b(name.encode(), key=self.digest, digest_size=8).digest(), "big")

    def between(self, name: str, low: int, high: int) -> int:
        """Give a number in low..high, both included."""
        return low + self.draw(name) % (high - low + 1)

    def choose(self, name: str, options: Sequence[_Choice]) -> _Choice:
        """Give one of the options."""
        return options[self.draw(name) % len(options)]

    def letters(self, name: str, length: int) -> str:
        """Give lower-case hexadecimal letters."""
        return hashlib.blake2b(name.encode(), key=self.digest, digest_size=(length + 1) // 2).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A generate request whose names are canonical; `markers` come from the last user text."""

    body: JsonObject
    model: str
    dice: Dice
    text: str
    markers: dict[str, str]
    config: JsonObject = field(default_factory=dict)

    @classmethod
    def read(cls, body: JsonObject, model: str) -> Prompt:
        """Check what the real API checks before it answers, or raise a 400."""
        if not body.get("contents"):
            raise invalid_argument("* GenerateContentRequest.contents: contents is not specified\n")
        _check_roles(body["contents"])
        canonical = orjson.dumps([model, body], option=orjson.OPT_SORT_KEYS)
        text = _last_user_text(body["contents"])
        markers = {found[1]: found[2] or "" for found in _MARKER.finditer(text)}
        dice = Dice(hashlib.blake2b(canonical, digest_size=32).digest())
        return cls(body, model, dice, _MARKER.sub("", text).strip(), markers, body.get("generationConfig", {}))

    def parts(self) -> Iterator[JsonObject]:
        """Give every part of every content, in order, without the system instruction."""
        for content in self.body["contents"]:
            yield from content.get("parts", ())

    def tools(self, name: str) -> list[JsonObject]:
        """Give the settings of every tool of that name."""
        return [tool[name] for tool in self.body.get("tools", ()) if tool.get(name) is not None]

    def declarations(self) -> list[JsonObject]:
        """Give the function declarations of every tool."""
        return [each for tool in self.body.get("tools", ()) for each in tool.get("functionDeclarations", ())]

    def answers_a_call(self) -> bool:
        """Whether the last content holds a function's response."""
        return any("functionResponse" in part for part in self.body["contents"][-1].get("parts", ()))


def _check_roles(contents: list[JsonObject]) -> None:
    for content in contents:
        if content.get("role", "user") not in {"user", "model", "function", "tool", ""}:
            raise invalid_argument("Please use a valid role: user, model.")


def _last_user_text(contents: list[JsonObject]) -> str:
    for content in reversed(contents):
        if content.get("role", "user") == "model":
            continue
        text = "\n".join(part["text"] for part in content.get("parts", ()) if part.get("text"))
        if text:
            return text
    return ""
