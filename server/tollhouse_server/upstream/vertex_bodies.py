"""The few members of a request that Vertex AI has elsewhere than the Developer API, moved as google-genai 3.4 does."""

import json
from typing import Any

import orjson

from tollhouse_server.long_values import Json
from tollhouse_server.upstream.protocol import Destination

_MOVED = (b'"cachedContent"', b'"modelSelectionConfig"', b'"outputMimeType"', b'"outputCompressionQuality"')
_IMAGE_OUTPUT = {"outputMimeType": "mimeType", "outputCompressionQuality": "compressionQuality"}


def counted(body: bytes) -> bytes:
    """Return the body of countTokens without the wrapper in which the Developer API wants a whole request."""
    inner = orjson.loads(body).get("generateContentRequest")
    if inner is None:
        return body
    return orjson.dumps({name: value for name, value in inner.items() if name != "model"})


def generated(body: Json, where: Destination) -> Json:
    """Return the body of generateContent for Vertex: the same bytes, unless they hold something that is moved."""
    shape = body if isinstance(body, bytes) else body.shape
    if not any(name in shape for name in _MOVED):
        return body
    # Not orjson, which turns integers beyond 64 bits, in a tool's arguments say, into floating-point numbers.
    request = json.loads(bytes(body))
    _name_cache(request, where)
    _move_configuration(request.get("generationConfig"))
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()


def _name_cache(request: dict[str, Any], where: Destination) -> None:
    """A cache's name is a resource of the project's on Vertex."""
    name = request.get("cachedContent")
    if isinstance(name, str) and name.startswith("cachedContents/"):
        request["cachedContent"] = f"projects/{where.project}/locations/{where.region}/{name}"


def _move_configuration(configuration: object) -> None:
    if not isinstance(configuration, dict):
        return
    if "modelSelectionConfig" in configuration:
        configuration["modelConfig"] = configuration.pop("modelSelectionConfig")
    image = configuration.get("imageConfig")
    if isinstance(image, dict):
        moved = {new: image.pop(old) for old, new in _IMAGE_OUTPUT.items() if old in image}
        if moved:
            image["imageOutputOptions"] = {**(image.get("imageOutputOptions") or {}), **moved}
