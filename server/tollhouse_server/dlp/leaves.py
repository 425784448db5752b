"""The texts in Gemini's JSON: values, keys, long numbers, and what is text within inline parts."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tollhouse_server.long_values import LongMedia

Path: TypeAlias = tuple[str | int, ...]

# Not written by people, and changed they would be refused; signatures are random and would look like anything.
_SKIPPED: Final = frozenset(
    {"role", "mimeType", "responseMimeType", "thoughtSignature", "finishReason", "modelVersion", "responseId", "model"}
)
# fmt: off
_FIELDS: Final = frozenset({
    "contents", "parts", "text", "role", "content", "requests", "systemInstruction", "generationConfig", "tools",
    "functionDeclarations", "functionCall", "functionResponse", "name", "args", "response", "inlineData", "data",
    "mimeType", "fileData", "fileUri", "parameters", "properties", "type", "description", "candidates", "index",
    "finishReason", "safetySettings", "category", "threshold", "toolConfig", "labels", "maxOutputTokens",
    "temperature", "topP", "topK", "thinkingConfig", "thinkingBudget", "usageMetadata", "required", "items", "enum",
    "id", "title", "thought", "thoughtSignature", "parametersJsonSchema", "responseSchema", "responseJsonSchema",
    "stopSequences",
})
# fmt: on
_TEXT_MEDIA: Final = re.compile(
    r"text/|[^;]+\+(?:json|xml)\b"
    r"|application/(?:x-)?(?:json|ndjson|xml|yaml|rtf|sql|javascript|ecmascript|typescript|python(?:-code)?|sh|httpd-php)\b",
    re.IGNORECASE,
)
_LEAST_NUMBER, _MOST_NUMBER = 10**6, 10**20


@dataclass(frozen=True, slots=True)
class Leaf:
    """One text and where it stands: `is_key` at the end of its path as a key, `is_inline` there in base64."""

    path: Path
    text: str
    is_key: bool = False
    is_inline: bool = False


def leaves(value: Any, path: Path = ()) -> Iterator[Leaf]:
    """Yield every text of a JSON value that a person, a tool or a model may have written."""
    if isinstance(value, str):
        yield Leaf(path, value)
    elif isinstance(value, Mapping):
        yield from _members(value, path)
    elif isinstance(value, list | tuple):
        for at, one in enumerate(() if _is_embedding(value) else value):
            yield from leaves(one, (*path, at))
    elif isinstance(value, int | float) and _LEAST_NUMBER <= abs(value) < _MOST_NUMBER and value == int(value):
        yield Leaf(path, str(int(value)))


def _members(value: Mapping[str, Any], path: Path) -> Iterator[Leaf]:
    inline = _inline_text(value)
    if inline is not None:
        yield Leaf((*path, "data"), inline, is_inline=True)
    for key, one in value.items():
        if key in _SKIPPED or (key == "data" and "mimeType" in value):
            continue
        if key not in _FIELDS:
            yield Leaf((*path, key), key, is_key=True)
        yield from leaves(one, (*path, key))


def _is_embedding(value: Sequence[Any]) -> bool:
    """Tell whether a list has only numbers too small for a text, of which an answer may have hundreds of thousands."""
    return set(map(type, value)) == {float} and max(value) < _LEAST_NUMBER and min(value) > -_LEAST_NUMBER


def _inline_text(value: Mapping[str, Any]) -> str | None:
    """Return the text of an inline part that has one; images, sound and documents are not looked into."""
    kind, encoded = value.get("mimeType"), value.get("data")
    if not isinstance(kind, str) or not isinstance(encoded, str | LongMedia) or not _TEXT_MEDIA.match(kind):
        return None
    if isinstance(encoded, LongMedia):
        return b"".join(encoded.raw).decode(errors="surrogateescape")
    try:
        padded = encoded + "=" * (-len(encoded) % 4)
        # Whatever its character set: what is not UTF-8 stays as it is, and comes out as it went in.
        return base64.b64decode(padded.replace("-", "+").replace("_", "/")).decode(errors="surrogateescape")
    except binascii.Error:
        return None


def rebuilt(value: Any, changes: Mapping[tuple[Path, bool], str], inline: frozenset[Path] = frozenset()) -> Any:
    """Return a JSON value with other texts at some places, by path and whether it is a key; the rest is shared."""
    tree: dict[Any, Any] = {}
    for (path, is_key), text in changes.items():
        node = tree
        for part in path[:-1] if is_key else path:
            node = node.setdefault(part, {})
        if is_key:
            node.setdefault(_KEYS, {})[path[-1]] = text
        else:
            node[_TEXT] = _encoded(text) if path in inline else text
    return _changed(value, tree)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode(errors="surrogateescape")).decode()


_TEXT: Final = object()
_KEYS: Final = object()


def _changed(value: Any, tree: Mapping[Any, Any]) -> Any:
    if _TEXT in tree:
        return tree[_TEXT]
    if isinstance(value, Mapping):
        keys = tree.get(_KEYS, {})
        return {keys.get(key, key): _changed(one, tree[key]) if key in tree else one for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(one, tree[at]) if at in tree else one for at, one in enumerate(value)]
    return value


def dotted(path: Path) -> str:
    """Return a path for people: `contents[0].parts[1].text`; keys of one's own are left out, they may be values."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if part in _FIELDS else ".*"
    return text.removeprefix(".")
