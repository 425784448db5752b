"""Builds generation requests from what is typed: prompt, files, tools, schema and settings."""

import json
import mimetypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from tollhouse.v1 import content_pb2

from tollhouse_admin.failures import Failure, wrong_usage

Parsed = TypeVar("Parsed", bound=Message)

# Python's table lacks them or names them otherwise than Gemini does.
_MEDIA_TYPES = {".webp": "image/webp", ".heic": "image/heic", ".md": "text/markdown", ".wav": "audio/wav"}


def read_prompt(prompt: str) -> str:
    """Return the prompt, which is on stdin when it is given as `-`.

    Raises:
        Failure: it is empty.
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise wrong_usage("The prompt is empty", "Give it as an argument, or - and the text on stdin.")
    return text


def user_turn(prompt: str, files: Sequence[Path] = ()) -> content_pb2.Content:
    """Return a user's turn: the files as inline media, then the text."""
    parts = [content_pb2.Part(inline_data=_blob(file)) for file in files]
    return content_pb2.Content(role="user", parts=[*parts, content_pb2.Part(text=prompt)])


def instruction(text: str | None) -> content_pb2.Content | None:
    """Return a system instruction; None without one."""
    return content_pb2.Content(parts=[content_pb2.Part(text=text)]) if text else None


def _blob(file: Path) -> content_pb2.Blob:
    media_type = _MEDIA_TYPES.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0]
    if media_type is None:
        raise wrong_usage(
            f"The media type of {file} is not plain from its name", "Give it a usual ending, such as .png."
        )
    try:
        return content_pb2.Blob(mime_type=media_type, data=file.read_bytes())
    except OSError as error:
        raise _unreadable(file, error.strerror or "it cannot be read") from error


def read_tools(file: Path | None) -> list[content_pb2.Tool]:
    """Return the tools in a JSON file: Gemini's `tools`, one tool, or a list of function declarations.

    Raises:
        Failure: the file is not that.
    """
    if file is None:
        return []
    document = _read_json(file)
    if isinstance(document, dict):
        document = document.get("tools", [document])
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise _unreadable(file, "it holds neither tools nor function declarations")
    if document and all("name" in entry for entry in document):
        document = [{"functionDeclarations": document}]
    return [_parse(entry, content_pb2.Tool(), file) for entry in document]


def read_schema(file: Path | None) -> Value | None:
    """Return the JSON schema in a file.

    Raises:
        Failure: the file is not JSON.
    """
    return None if file is None else _parse(_read_json(file), Value(), file)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except OSError as error:
        raise _unreadable(file, error.strerror or "it cannot be read") from error
    except ValueError as error:
        raise _unreadable(file, f"it is not JSON: {error}") from error


def _parse(document: Any, message: Parsed, file: Path) -> Parsed:
    try:
        return ParseDict(document, message)
    except ParseError as error:
        raise _unreadable(file, str(error)) from error


def _unreadable(file: Path, why: str) -> Failure:
    return wrong_usage(f"{file} cannot be used: {why}")


def read_labels(pairs: Sequence[str]) -> Mapping[str, str]:
    """Return labels typed as `key=value`.

    Raises:
        Failure: one has no `=`.
    """
    for pair in pairs:
        if "=" not in pair:
            raise wrong_usage(f"{pair!r} is not a label", "Write it like --label team=search.")
    return dict(pair.split("=", 1) for pair in pairs)


@dataclass(frozen=True, slots=True)
class Destination:
    """What a call is routed by: exactly one of the two."""

    tier: str | None
    model: str | None


def destination(tier: str | None, model: str | None, *, default: str) -> Destination:
    """Return where a call is to go: the tier or model that was given, else the default tier.

    Raises:
        Failure: both were given.
    """
    if tier and model:
        raise wrong_usage("A call is routed by a tier or by a model", "Give --tier or --model, not both.")
    if model:
        return Destination(None, model.removeprefix("models/"))
    return Destination((tier or default).removeprefix("tiers/"), None)
