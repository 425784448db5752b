"""Embeddings on Vertex AI: one form for callers, the three of Vertex behind it, chosen as google-genai 3.4 does.

Gemini's models answer `embedContent` for one content and `batchEmbedContents` for several, models of partners
(`-maas`) only the former, and older ones `predict`, which takes text alone and counts tokens item by item.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tollhouse_server.upstream.protocol import Broken, Refused

_CONFIG = "embedContentConfig"
_OWN_MEMBERS = frozenset({"model", "content", _CONFIG})
_INSTANCE_MEMBERS = {"taskType": "task_type", "title": "title", "mimeType": "mimeType"}
_PARAMETERS = ("autoTruncate", "outputDimensionality")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request as Vertex wants it, and the way back from its answer to batchEmbedContents's."""

    method: str
    body: bytes
    answer: Callable[[dict[str, Any]], dict[str, Any]]


def question(body: bytes, model: str) -> Question:
    """Return what to ask Vertex for a body of batchEmbedContents.

    Raises:
        Refused: it cannot be asked in one request.
    """
    requests = orjson.loads(body).get("requests") or []
    if "gemini" not in model and "maas" not in model:
        return Question(method="predict", body=orjson.dumps(_prediction(requests)), answer=_from_prediction)
    if len(requests) == 1:
        return Question(method="embedContent", body=orjson.dumps(_single(requests[0])), answer=_from_single)
    if "maas" in model:
        raise _refused("This model embeds one content at a time.")
    batch = {"requests": [_single(request) for request in requests]}
    return Question(method="batchEmbedContents", body=orjson.dumps(batch), answer=lambda answer: answer)


def _single(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": request.get("content"), **({_CONFIG: config} if (config := _config(request)) else {})}


def _config(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the Developer API has beside the content and Vertex in an object of its own."""
    beside = {name: value for name, value in request.items() if name not in _OWN_MEMBERS}
    return {**(request.get(_CONFIG) or {}), **beside}


def _prediction(requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    configs = [_config(request) for request in requests]
    shared = [{name: config.pop(name) for name in _PARAMETERS if name in config} for config in configs]
    if any(one != shared[0] for one in shared):
        raise _refused("This model wants one length and one way of cutting for all contents of a request.")
    if strange := {name for config in configs for name in config if name not in _INSTANCE_MEMBERS}:
        raise _refused(f"This model knows no {', '.join(sorted(strange))}.")
    instances = [
        {"content": _text(request), **{_INSTANCE_MEMBERS[name]: value for name, value in config.items()}}
        for request, config in zip(requests, configs, strict=True)
    ]
    return {"instances": instances, **({"parameters": shared[0]} if shared and shared[0] else {})}


def _text(request: Mapping[str, Any]) -> str:
    parts = (request.get("content") or {}).get("parts") or []
    if not all(isinstance(part.get("text"), str) and len(part) == 1 for part in parts):
        raise _refused("This model embeds text only.")
    return "".join(part["text"] for part in parts)


def _from_single(answer: dict[str, Any]) -> dict[str, Any]:
    embedding = answer.pop("embedding", None)
    return answer if embedding is None else {"embeddings": [embedding], **answer}


def _from_prediction(answer: dict[str, Any]) -> dict[str, Any]:
    """Gather the embeddings, and the sum of their tokens where each says its own: a missing count is not zero."""
    try:
        embeddings = [prediction["embeddings"] for prediction in answer.pop("predictions")]
        statistics = [embedding.get("statistics") or {} for embedding in embeddings]
    except (KeyError, TypeError, AttributeError):
        raise Broken("the answer holds no predictions") from None
    counts = [_tokens(one) for one in statistics]
    for embedding, one in zip(embeddings, statistics, strict=True):
        if "token_count" in one:
            embedding["statistics"] = {("tokenCount" if name == "token_count" else name): one[name] for name in one}
    known = [count for count in counts if count is not None]
    usage = {"usageMetadata": {"promptTokenCount": sum(known)}} if len(known) == len(counts) and counts else {}
    truncated = {"truncated": True} if any(one.get("truncated") for one in statistics) else {}
    return {"embeddings": embeddings, **answer, **truncated, **usage}


def _tokens(statistics: Mapping[str, Any]) -> int | None:
    """Return the count of one item, which the API defines as a floating-point number."""
    count = statistics.get("token_count")
    return int(count) if isinstance(count, int | float) and count == int(count) else None


def _refused(message: str) -> Refused:
    """Refuse as Google would: nothing was sent, and no other target of this kind would do better."""
    return Refused(400, {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}})
