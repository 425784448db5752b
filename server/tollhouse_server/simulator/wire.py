"""Reading request bodies as protobuf JSON does: either spelling of a name, typed, unknown names refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tollhouse_server.simulator.errors import JsonObject, invalid_argument

# A field's type is a scalar's name, "struct" (any object), "any" (left as it is), a message's name, or one in a list.
_CONTENT = {"parts": ["Part"], "role": "string"}
_BLOB = {"mimeType": "string", "data": "bytes", "displayName": "string"}
_FILE = {"mimeType": "string", "fileUri": "string", "displayName": "string"}
_REQUEST: dict[str, Any] = {
    "model": "string",
    "contents": ["Content"],
    "systemInstruction": "Content",
    "tools": ["Tool"],
    "toolConfig": "ToolConfig",
    "safetySettings": ["any"],
    "generationConfig": "GenerationConfig",
    "cachedContent": "string",
    "labels": "struct",
    "serviceTier": "string",
    "modelArmorConfig": "struct",
    "store": "bool",
}
MESSAGES: Mapping[str, Mapping[str, Any]] = {
    "GenerateContentRequest": _REQUEST,
    "CountTokensRequest": _REQUEST | {"generateContentRequest": "GenerateContentRequest"},
    "EmbedContentRequest": {
        "model": "string",
        "content": "Content",
        "taskType": "string",
        "title": "string",
        "outputDimensionality": "int",
        "autoTruncate": "bool",
        "embedContentConfig": "struct",
    },
    "BatchEmbedContentsRequest": {"model": "string", "requests": ["EmbedContentRequest"]},
    "PredictRequest": {"instances": ["struct"], "parameters": "struct"},
    "Content": _CONTENT,
    "Part": {
        "text": "string",
        "inlineData": "Blob",
        "fileData": "FileData",
        "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse",
        "executableCode": "struct",
        "codeExecutionResult": "struct",
        "thought": "bool",
        "thoughtSignature": "string",
        "videoMetadata": "VideoMetadata",
        "partMetadata": "struct",
        "mediaResolution": "any",
        "toolCall": "struct",
        "toolResponse": "struct",
    },
    "Blob": _BLOB,
    "FileData": _FILE,
    "VideoMetadata": {"startOffset": "any", "endOffset": "any", "fps": "number"},
    "FunctionCall": {"id": "string", "name": "string", "args": "struct", "partialArgs": "any", "willContinue": "bool"},
    "FunctionResponse": {
        "id": "string",
        "name": "string",
        "response": "struct",
        "parts": ["FunctionResponsePart"],
        "willContinue": "bool",
        "scheduling": "string",
    },
    "FunctionResponsePart": {"inlineData": "Blob", "fileData": "FileData"},
    "Tool": {
        "functionDeclarations": ["FunctionDeclaration"],
        "googleSearch": "struct",
        "googleSearchRetrieval": "struct",
        "codeExecution": "struct",
        "urlContext": "struct",
        "fileSearch": "struct",
        "googleMaps": "struct",
        "computerUse": "struct",
        "retrieval": "struct",
        "enterpriseWebSearch": "struct",
        "mcpServers": "any",
    },
    "FunctionDeclaration": {
        "name": "string",
        "description": "string",
        "behavior": "string",
        "parameters": "struct",
        "parametersJsonSchema": "struct",
        "response": "struct",
        "responseJsonSchema": "struct",
    },
    "ToolConfig": {
        "functionCallingConfig": "FunctionCallingConfig",
        "retrievalConfig": "struct",
        "includeServerSideToolInvocations": "bool",
    },
    "FunctionCallingConfig": {
        "mode": "string",
        "allowedFunctionNames": ["string"],
        "streamFunctionCallArguments": "bool",
    },
    "GenerationConfig": {
        "stopSequences": ["string"],
        "responseMimeType": "string",
        "responseSchema": "struct",
        "responseJsonSchema": "struct",
        "responseModalities": ["string"],
        "candidateCount": "int",
        "maxOutputTokens": "int",
        "temperature": "number",
        "topP": "number",
        "topK": "number",
        "seed": "int",
        "presencePenalty": "number",
        "frequencyPenalty": "number",
        "responseLogprobs": "bool",
        "logprobs": "int",
        "enableEnhancedCivicAnswers": "bool",
        "audioTimestamp": "bool",
        "routingConfig": "any",
        "modelSelectionConfig": "any",
        "speechConfig": "any",
        "thinkingConfig": "ThinkingConfig",
        "imageConfig": "ImageConfig",
        "mediaResolution": "string",
        "responseFormat": "any",
    },
    "ThinkingConfig": {"includeThoughts": "bool", "thinkingBudget": "int", "thinkingLevel": "string"},
    "ImageConfig": {
        "aspectRatio": "string",
        "imageSize": "string",
        "personGeneration": "string",
        "prominentPeople": "any",
        "imageOutputOptions": "any",
    },
}
_ALIASES = {"_responseJsonSchema": "responseJsonSchema"}
_INT32_LIMIT = 2**31 - 1
_SNAKE = re.compile(r"_([a-z0-9])")


def read_message(raw: bytes, message: str) -> JsonObject:
    """Parse a body as that message with names in lowerCamelCase, or raise a 400."""
    try:
        parsed = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError:
        raise invalid_argument("Invalid JSON payload received. Unexpected token.") from None
    if not isinstance(parsed, dict):
        raise invalid_argument("Invalid JSON payload received. Root element must be a message.")
    return _read_fields(parsed, message, "")


def _read(value: Any, kind: Any, path: str) -> Any:
    if kind == "any" or value is None:
        return value
    if isinstance(kind, list):
        return _read_list(value, kind[0], path)
    check = _SCALARS.get(kind)
    if check is not None:
        return _read_scalar(value, kind, path, check)
    if not isinstance(value, dict):
        raise invalid_argument(f"Invalid value at '{path}' ({kind}), {_shown(value)}", field=path)
    return _read_fields(value, kind, path)


def _read_fields(value: JsonObject, kind: str, path: str) -> JsonObject:
    known = MESSAGES[kind]
    read: JsonObject = {}
    for name, inner in value.items():
        camel = name if name in known else _ALIASES.get(name) or _SNAKE.sub(lambda found: found[1].upper(), name)
        if camel not in known:
            where = f" at '{path}'" if path else ""
            raise invalid_argument(
                f'Invalid JSON payload received. Unknown name "{name[:80]}"{where}: Cannot find field.', field=path
            )
        if inner is not None:
            read[camel] = _read(inner, known[camel], f"{path}.{camel}" if path else camel)
    return read


def _read_list(value: Any, kind: str, path: str) -> list[Any]:
    # Protobuf JSON takes a single message where a list stands; the real API does so too.
    items = value if isinstance(value, list) else [value]
    if None in items:
        raise invalid_argument(f"Invalid value at '{path}', null in a repeated field", field=path)
    return [_read(item, kind, f"{path}[{index}]") for index, item in enumerate(items)]


def _read_scalar(value: Any, kind: str, path: str, check: Callable[[Any], Any]) -> Any:
    try:
        return check(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid_argument(f"Invalid value at '{path}' ({_PROTO[kind]}), {_shown(value)}", field=path) from None


def _struct(value: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str, float)) or int(value) != float(value):
        raise TypeError
    if abs(int(value)) > _INT32_LIMIT:
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    return float(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "struct": _struct,
    "string": _string,
    "bytes": _string,
    "int": _int,
    "number": _number,
    "bool": _bool,
}
_PROTO = {
    "struct": "TYPE_MESSAGE",
    "string": "TYPE_STRING",
    "bytes": "TYPE_BYTES",
    "int": "TYPE_INT32",
    "number": "TYPE_FLOAT",
    "bool": "TYPE_BOOL",
}


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()[:80] if not isinstance(value, (dict, list)) else "starting an object or array"
