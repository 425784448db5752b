"""What a candidate says: text, structured output and function calls, each with its exact token count."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from tollhouse_server.simulator.errors import JsonObject, invalid_argument
from tollhouse_server.simulator.models import Model
from tollhouse_server.simulator.prompts import Dice, Prompt
from tollhouse_server.simulator.schema_values import value_for
from tollhouse_server.simulator.tokens import first_tokens, json_tokens, text_tokens

_SENTENCES = (
    "The toll is taken once, at the gate, and written down before the barrier lifts.",
    "A careful clerk counts every coin that comes in and every coin that goes out.",
    "When two carts arrive together, the one that was first on the road goes first.",
    "The ledger on the desk is the only place where the sum is decided.",
    "Rain or shine, the lamp above the door is lit at dusk and put out at dawn.",
    "A traveller without money is told so kindly, and told when the gate opens again.",
    "Every page is numbered, so that a missing page is noticed the same evening.",
    "The road beyond leads over the hills to a quiet town by the river.",
)
_QUOTE_LIMIT = 120


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a candidate and the tokens it counts for."""

    part: JsonObject
    tokens: int
    modality: str = "TEXT"


@dataclass(frozen=True, slots=True)
class Written:
    """Pieces that fit the room given, and whether they were cut there."""

    pieces: tuple[Piece, ...]
    cut: bool = False

    @property
    def tokens(self) -> int:
        """All pieces' tokens."""
        return sum(piece.tokens for piece in self.pieces)


def exact_tokens(prompt: Prompt, room: int) -> int | None:
    """Give how many tokens a marker asks for: `[[tokens:N]]`, or `[[full]]` = all the room; None without one."""
    if "full" in prompt.markers:
        return room
    wanted = prompt.markers.get("tokens", "")
    return min(int(wanted), room) if wanted.isdecimal() else None


def write_text(prompt: Prompt, room: int, index: int) -> Written:
    """Write text or structured output in at most `room` tokens."""
    structured = _structured(prompt)
    text = structured if structured is not None else _prose(prompt, index)
    exact = exact_tokens(prompt, room)
    if exact is not None:
        text = _fitted(text, exact, filler=" " if structured is not None else " ".join(_SENTENCES))
    text = _stopped(text, prompt.config.get("stopSequences", ()))
    cut = text_tokens(text) > room or "full" in prompt.markers
    text = first_tokens(text, room)
    return Written((Piece({"text": text}, text_tokens(text)),) if text else (), cut)


def write_calls(prompt: Prompt, model: Model, room: int) -> Written | None:
    """Write function calls when tools are given and the mode asks for them, or None to answer in text."""
    chosen = _called(prompt)
    if not chosen:
        return None
    pieces = tuple(_call_piece(prompt, model, declaration, turn) for turn, declaration in enumerate(chosen))
    written = Written(pieces)
    if written.tokens > room:
        return Written((), cut=True)
    exact = exact_tokens(prompt, room)
    if exact is not None and exact > written.tokens:
        # The markers promise a count, so text goes before the call.
        text = _fitted("I will look that up.", exact - written.tokens, filler=" ".join(_SENTENCES))
        return Written((Piece({"text": text}, text_tokens(text)), *pieces), cut="full" in prompt.markers)
    return written


def signature(dice: Dice, name: str) -> str:
    """Give an opaque thought signature."""
    return base64.b64encode(hashlib.shake_256(dice.digest + name.encode()).digest(96)).decode()


def _prose(prompt: Prompt, index: int) -> str:
    if "echo" in prompt.markers:
        return prompt.text
    dice = prompt.dice
    start, count = dice.between(f"start{index}", 0, 7), dice.between(f"sentences{index}", 1, 4)
    sentences = " ".join(_SENTENCES[(start + step) % len(_SENTENCES)] for step in range(count))
    quoted = prompt.text[:_QUOTE_LIMIT]
    return f"You said: {quoted}\n\n{sentences}" if quoted else sentences


def _structured(prompt: Prompt) -> str | None:
    config = prompt.config
    kind = config.get("responseMimeType", "text/plain")
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    if kind not in {"application/json", "text/x.enum", "text/plain"}:
        raise invalid_argument(
            f"* GenerateContentRequest.generation_config.response_mime_type: {kind} is not allowed\n"
        )
    if schema is not None and kind == "text/plain":
        raise invalid_argument(
            "* GenerateContentRequest.generation_config.response_mime_type: "
            "Function calling config or response schema needs application/json\n"
        )
    if kind == "text/plain":
        return None
    value: Any = value_for(schema, prompt.dice) if schema else {"answer": prompt.text[:_QUOTE_LIMIT]}
    return str(value) if kind == "text/x.enum" else orjson.dumps(value).decode()


def _fitted(text: str, tokens: int, *, filler: str) -> str:
    missing = tokens - text_tokens(text)
    if missing > 0:
        repeats = 4 * missing // len(filler) + 1
        text += (filler * repeats)[: 4 * missing]
    return first_tokens(text, tokens)


def _stopped(text: str, stops: list[str] | tuple[str, ...]) -> str:
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def _called(prompt: Prompt) -> list[JsonObject]:
    settings = prompt.body.get("toolConfig", {}).get("functionCallingConfig", {})
    mode = settings.get("mode", "AUTO").upper()
    offered = prompt.declarations()
    allowed = settings.get("allowedFunctionNames")
    if mode == "ANY" and allowed:
        offered = [each for each in offered if each.get("name") in allowed]
    if not offered or mode == "NONE" or (mode != "ANY" and _prefers_text(prompt)):
        return []
    named = [each for each in offered if each.get("name") and each["name"] in prompt.text]
    first = (named or [prompt.dice.choose("function", offered)])[0]
    extra = prompt.markers.get("calls", "1")
    return [first] * max(1, min(int(extra) if extra.isdecimal() else 1, 16))


def _prefers_text(prompt: Prompt) -> bool:
    return prompt.answers_a_call() or not prompt.markers.keys().isdisjoint({"text", "echo", "tokens", "full"})


def _call_piece(prompt: Prompt, model: Model, declaration: JsonObject, turn: int) -> Piece:
    schema = declaration.get("parametersJsonSchema") or declaration.get("parameters") or {"type": "object"}
    dice = Dice(hashlib.blake2b(bytes([turn]), key=prompt.dice.digest, digest_size=32).digest())
    call: JsonObject = {"name": declaration.get("name", ""), "args": value_for(schema, dice)}
    tokens = json_tokens(call)
    if model.family != "2.5":
        call["id"] = dice.letters("call", 8)
    part: JsonObject = {"functionCall": call}
    if model.thinking and turn == 0:
        part["thoughtSignature"] = signature(dice, "call")
    return Piece(part, tokens)
