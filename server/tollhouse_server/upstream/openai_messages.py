"""From Gemini's contents to chat messages.

Left out because no such server takes them back: thoughts of earlier turns and the signatures of Google's own models.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tollhouse_server.upstream.openai_members import Members, inexpressible

_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
}
_ROLES = ("USER", "MODEL", "FUNCTION", "TOOL")

Message = dict[str, Any]


def messages_of(request: Members) -> list[Message]:
    """Take systemInstruction and contents, and return them as messages.

    Raises:
        Refused: they hold what a message cannot.
    """
    messages = _system(request.inner("systemInstruction"))
    turns = _Turns()
    for content in request.each("contents"):
        turns.add(content)
    if not turns.messages:
        raise inexpressible("contents", "is not specified")
    return messages + turns.messages


def text_of(content: Members) -> str:
    """Take the parts of a content that may hold nothing but text, as what is embedded and system instructions are."""
    content.leave("role")
    texts = []
    for part in content.each("parts"):
        part.leave("thoughtSignature")
        texts.append(part.text("text") or "")
        part.end()
    content.end()
    return "\n".join(texts)


def _system(content: Members | None) -> list[Message]:
    text = text_of(content) if content is not None else ""
    return [{"role": "system", "content": text}] if text else []


@dataclass(slots=True)
class _Calls:
    """The function calls of a conversation and the ids by which their responses name them.

    Older Gemini models give their calls no id: those are numbered here, and a response without an id answers the first
    open call of its name.
    """

    made: int = 0
    open: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, given_id: str | None) -> str:
        self.made += 1
        call_id = given_id or f"call_{self.made}"
        self.open.append((call_id, name))
        return call_id

    def answer(self, name: str, given_id: str | None, place: str) -> str:
        for call in self.open:
            if call[0] == given_id or (given_id is None and call[1] == name):
                self.open.remove(call)
                return call[0]
        if given_id is None:
            raise inexpressible(place, f"answers no open call of {name[:80]!r}, and has no id")
        return given_id


class _Turns:
    """Messages as they are written, content by content."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._calls = _Calls()

    def add(self, content: Members) -> None:
        role = content.word("role", *_ROLES) or "USER"
        parts = content.each("parts")
        if role == "MODEL":
            self._add_model(parts)
        else:
            self._add_user(parts)
        content.end()

    def _add_model(self, parts: Iterable[Members]) -> None:
        texts, calls = [], []
        for part in parts:
            part.leave("thoughtSignature")
            call, text = part.inner("functionCall"), part.text("text")
            is_thought = part.take("thought") is True
            part.end()
            if call is not None:
                calls.append(self._tool_call(call))
            elif text and not is_thought:
                texts.append(text)
        # Without a separator: an answer that came as a stream is kept as many parts of one text.
        message: Message = {"role": "assistant", "content": "".join(texts) or None}
        if calls:
            message["tool_calls"] = calls
        if texts or calls:
            self.messages.append(message)

    def _tool_call(self, call: Members) -> Message:
        name = call.text("name") or ""
        call_id = self._calls.add(name, call.text("id"))
        arguments = orjson.dumps(call.take("args") or {}).decode()
        call.end()
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _add_user(self, parts: Iterable[Members]) -> None:
        """Responses of functions become messages of their own, before what the user says beside them."""
        said = []
        for part in parts:
            part.leave("thoughtSignature")
            response = part.inner("functionResponse")
            if response is not None:
                self.messages.append(self._tool_message(response))
            else:
                said += _said(part)
            part.end()
        if said:
            self.messages.append({"role": "user", "content": _plain_if_text(said)})

    def _tool_message(self, response: Members) -> Message:
        name = response.text("name") or ""
        call_id = self._calls.answer(name, response.text("id"), response.place)
        content = orjson.dumps(response.take("response") or {}).decode()
        response.end()
        return {"role": "tool", "tool_call_id": call_id, "content": content}


def _said(part: Members) -> list[Message]:
    blob, text = part.inner("inlineData"), part.text("text")
    said = [{"type": "text", "text": text}] if text else []
    return said if blob is None else [*said, _media(blob)]


def _media(blob: Members) -> Message:
    mime_type = (blob.text("mimeType") or "").lower()
    encoded = (blob.text("data") or "").replace("-", "+").replace("_", "/")
    blob.leave("displayName")
    blob.end()
    if mime_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": f"data:{mime_type};base64,{encoded}"}}
    audio = _AUDIO_FORMATS.get(mime_type)
    if audio is None:
        raise inexpressible(blob.at("mimeType"), f"{mime_type[:80]!r} cannot be sent to an OpenAI-compatible server")
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": audio}}


def _plain_if_text(said: list[Message]) -> str | list[Message]:
    """Write text alone as a string, which every chat template takes."""
    if any(part["type"] != "text" for part in said):
        return said
    return "\n".join(part["text"] for part in said)
