"""What a request needs of a model, read from its body before anything is held."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tollhouse_server.routing.models import Capability

CHARACTERS_PER_TOKEN: Final = 32
"""No text has more: the longest entries of Gemma's public vocabulary are runs of 31 blanks; English averages 4.5."""

_INPUTS: Final[Mapping[str, Capability]] = {
    "image": Capability.IMAGE_INPUT,
    "audio": Capability.AUDIO_INPUT,
    "video": Capability.VIDEO_INPUT,
}
_OUTPUTS: Final[Mapping[str, Capability]] = {"IMAGE": Capability.IMAGE_OUTPUT, "AUDIO": Capability.AUDIO_OUTPUT}
_CAPABILITY_FIELDS: Final = {
    "functionDeclarations": Capability.FUNCTION_CALLING,
    "function_declarations": Capability.FUNCTION_CALLING,
}
_SHAPES: Final = ("responseSchema", "responseJsonSchema", "response_schema", "response_json_schema")
_INSTRUCTIONS: Final = ("systemInstruction", "system_instruction")
_TELLING: Final = frozenset(
    {
        *_SHAPES,
        *("responseMimeType", "response_mime_type"),
        *("responseModalities", "response_modalities"),
        *("thinkingConfig", "thinking_config"),
    }
)
"""What of a generationConfig a model must be able to do."""


_NO_FIELDS: Final[Mapping[Capability, str]] = MappingProxyType({})


class Requirements(NamedTuple):
    """The capabilities that a request needs, each with the field that needs it, and how much text it has.

    `characters` counts the prompt's text only; every character is at least one byte.
    """

    fields: Mapping[Capability, str] = _NO_FIELDS
    characters: int = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return all that is needed."""
        return frozenset(self.fields)

    @property
    def least_input_tokens(self) -> int:
        """Return how many tokens the prompt has at the least."""
        return self.characters // CHARACTERS_PER_TOKEN

    @property
    def likely_input_tokens(self) -> int:
        """Return about how many tokens the prompt's text has: four characters each."""
        return (self.characters + 3) // 4


NOTHING: Final = Requirements()


def requirements_of(body: Mapping[str, Any]) -> Requirements:
    """Return what a request in Gemini's REST JSON needs; pure, and quick for plain text.

    Requests for embeddings count no characters: Google cuts off what is too long instead of refusing it.
    """
    fields: dict[Capability, str] = {}
    characters = 0
    for position, content in enumerate(_items(body.get("contents"))):
        characters += _of_parts(content.get("parts"), position, fields)
    for name in _INSTRUCTIONS:
        if (instruction := body.get(name)) is not None:
            for content in _items(instruction):
                characters += _of_parts(content.get("parts"), None, fields)
    if (requests := body.get("requests")) is not None:
        for position, request in enumerate(_items(requests)):
            for content in _items(request.get("content")):
                _of_parts(content.get("parts"), position, fields)
    _of_tools(body.get("tools"), fields)
    if "cachedContent" in body or "cached_content" in body:
        fields[Capability.CONTEXT_CACHING] = "cached_content"
    config = body.get("generationConfig", body.get("generation_config"))
    if config and isinstance(config, dict) and not _TELLING.isdisjoint(config):
        _of_config(config, fields)
    return Requirements(fields, characters)


def _items(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, list):
        return [one for one in value if isinstance(one, dict)]
    return [value] if isinstance(value, dict) else []


def _of_parts(parts: Any, position: int | None, fields: dict[Capability, str]) -> int:
    """Return how many characters some parts have: those of a content, or without a position of the instruction."""
    characters = 0
    for number, part in enumerate(parts if isinstance(parts, list) else _items(parts)):
        if not isinstance(part, dict):
            continue
        text = part.get("text")
        if isinstance(text, str):
            characters += len(text)
        if len(part) > 1 or text is None:
            above = "system_instruction" if position is None else f"contents[{position}]"
            _of_media(part, f"{above}.parts[{number}]", fields)
    return characters


def _of_media(part: Mapping[str, Any], path: str, fields: dict[Capability, str]) -> None:
    for name, snake in (("inlineData", "inline_data"), ("fileData", "file_data")):
        blob = part.get(name, part.get(snake))
        if isinstance(blob, dict):
            needed = _input_of(str(blob.get("mimeType") or blob.get("mime_type") or ""))
            if needed is not None:
                fields.setdefault(needed, f"{path}.{snake}")
    answer = part.get("functionResponse", part.get("function_response"))
    if isinstance(answer, dict):
        for position, inner in enumerate(_items(answer.get("parts"))):
            _of_media(inner, f"{path}.function_response.parts[{position}]", fields)


def _input_of(mime_type: str) -> Capability | None:
    """Return what a medium needs; text of any kind, and what is not known here, needs nothing."""
    kind = mime_type.lower()
    return Capability.DOCUMENT_INPUT if kind == "application/pdf" else _INPUTS.get(kind.partition("/")[0])


def _of_tools(tools: Any, fields: dict[Capability, str]) -> None:
    for position, tool in enumerate(_items(tools)):
        for name, capability in _CAPABILITY_FIELDS.items():
            if tool.get(name):
                fields.setdefault(capability, f"tools[{position}].function_declarations")


def _of_config(config: Mapping[str, Any], fields: dict[Capability, str]) -> None:
    for name in _SHAPES:
        if config.get(name):
            fields.setdefault(Capability.STRUCTURED_OUTPUT, f"generation_config.{_snake(name)}")
    mime_type = config.get("responseMimeType", config.get("response_mime_type"))
    if mime_type in ("application/json", "text/x.enum"):
        fields.setdefault(Capability.STRUCTURED_OUTPUT, "generation_config.response_mime_type")
    modalities = config.get("responseModalities", config.get("response_modalities"))
    for modality in modalities if isinstance(modalities, list) else ():
        if (needed := _OUTPUTS.get(str(modality).upper())) is not None:
            fields.setdefault(needed, "generation_config.response_modalities")
    thinking = config.get("thinkingConfig", config.get("thinking_config"))
    if isinstance(thinking, dict) and asks_to_think(thinking):
        fields.setdefault(Capability.THINKING, "generation_config.thinking_config")


def asks_to_think(thinking: Mapping[str, Any]) -> bool:
    """Tell whether a thinkingConfig asks for thoughts; a budget of 0 asks for none."""
    budget = thinking.get("thinkingBudget", thinking.get("thinking_budget"))
    level = thinking.get("thinkingLevel", thinking.get("thinking_level"))
    return bool(budget) or (budget is None and bool(level))


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
