"""Embeddings: vectors of length one that depend only on the text and the dimension."""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from typing import Any

import orjson

from tollhouse_server.simulator.errors import JsonObject, invalid_argument
from tollhouse_server.simulator.models import Model
from tollhouse_server.simulator.tokens import content_tokens, details, text_tokens

_BATCH_LIMIT = 250


def embed(request: JsonObject, model: Model) -> tuple[JsonObject, Counter[str]]:
    """Give `{"values": [...]}` for one EmbedContentRequest and the tokens it counts for."""
    if not request.get("content"):
        raise invalid_argument("* EmbedContentRequest.content: contents is not specified\n")
    settings = request.get("embedContentConfig") or {}
    wanted = _dimensions(request.get("outputDimensionality") or settings.get("outputDimensionality"), model)
    content = request["content"].get("parts", ())
    return {"values": _vector([model.id, content], wanted)}, content_tokens(request["content"], model, {})


def embed_batch(body: JsonObject, model: Model) -> tuple[list[JsonObject], Counter[str]]:
    """Embed every request of a batch."""
    requests = body.get("requests") or []
    if not 1 <= len(requests) <= _BATCH_LIMIT:
        raise invalid_argument(f"* BatchEmbedContentsRequest.requests: 1 to {_BATCH_LIMIT} requests are allowed\n")
    counts: Counter[str] = Counter()
    vectors = []
    for request in requests:
        vector, tokens = embed(request, model)
        vectors.append(vector)
        counts += tokens
    return vectors, counts


def developer_usage(counts: Counter[str]) -> JsonObject:
    """Give usage as the Developer API spells it for embeddings: `promptTokenDetails`, no total."""
    return {"promptTokenCount": counts.total(), "promptTokenDetails": details(counts)}


def vertex_usage(counts: Counter[str]) -> JsonObject:
    """Give usage as Vertex spells it for embeddings."""
    total = counts.total()
    return {"promptTokenCount": total, "promptTokensDetails": details(counts), "totalTokenCount": total}


def predict(body: JsonObject, model: Model) -> tuple[JsonObject, Counter[str]]:
    """Answer Vertex's older `predict` form, whose usage is in `statistics.token_count`."""
    predictions, counts = [], Counter[str]()
    wanted = _dimensions((body.get("parameters") or {}).get("outputDimensionality"), model)
    for instance in body.get("instances") or []:
        if not isinstance(instance, dict):
            raise invalid_argument("Invalid value at 'instances' (TYPE_STRUCT)")
        text = str(instance.get("content", ""))
        tokens = text_tokens(text)
        counts["TEXT"] += tokens
        statistics = {"token_count": tokens, "truncated": False}
        predictions.append({"embeddings": {"values": _vector([model.id, text], wanted), "statistics": statistics}})
    return {"predictions": predictions, "metadata": {"billableCharacterCount": counts.total() * 4}}, counts


def _dimensions(wanted: Any, model: Model) -> int:
    if wanted is None:
        return model.dimensions
    if not isinstance(wanted, int) or not 1 <= wanted <= model.dimensions:
        raise invalid_argument(f"output_dimensionality must be in the range from 1 to {model.dimensions}.")
    return wanted


def _vector(source: Any, dimensions: int) -> list[float]:
    noise = hashlib.shake_256(orjson.dumps(source)).digest(2 * dimensions)
    raw = struct.unpack(f"<{dimensions}h", noise)
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [round(value / length, 9) for value in raw]
