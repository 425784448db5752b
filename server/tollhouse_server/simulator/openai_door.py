"""The simulator as an OpenAI-compatible server, over the same models, keys, faults, quotas and call log.

/v1/chat/completions, /v1/embeddings, /v1/models and vLLM's /tokenize. The call log and fault plans name the methods as
the Gemini door does, so that one referee reads both; usage is logged as OpenAI's counts can tell it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import orjson
from starlette.requests import Request
from starlette.responses import Response

from tollhouse_server.simulator import embeddings, errors, openai_wire
from tollhouse_server.simulator.answers import Answer, answer
from tollhouse_server.simulator.bodies import read_body
from tollhouse_server.simulator.call_log import CallRow
from tollhouse_server.simulator.delivery import Delivery, Pace
from tollhouse_server.simulator.door import Door
from tollhouse_server.simulator.errors import GeminiError, JsonObject
from tollhouse_server.simulator.faults import FaultPlan
from tollhouse_server.simulator.keys import Caller
from tollhouse_server.simulator.models import Model
from tollhouse_server.simulator.prompts import Prompt
from tollhouse_server.simulator.quotas import Load
from tollhouse_server.simulator.streaming import chunks
from tollhouse_server.simulator.tokens import prompt_tokens, text_tokens
from tollhouse_server.simulator.usage import Surface

_MODELS = "/v1/models"
_METHODS = {
    "/v1/chat/completions": "generateContent",
    "/v1/embeddings": "batchEmbedContents",
    "/tokenize": "countTokens",
}
PATHS = frozenset({*_METHODS, _MODELS})
_STREAM = "streamGenerateContent"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class _Call:
    """One request that was let in."""

    caller: Caller
    model: Model
    method: str
    body: JsonObject
    attempt_id: str | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A computed answer: its pieces as they are sent, and beside each piece the usage so far."""

    pieces: list[bytes]
    usage: JsonObject
    output_tokens: int = 0
    response_id: str | None = None
    usage_so_far: list[JsonObject] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OpenAIDoor:
    """Answers one request after another with the parts of a Gemini door."""

    door: Door

    async def answer(self, request: Request) -> Response:
        """Answer a request, refusals included; whoever lists models with an API key means Gemini's list."""
        path, authorization = request.url.path, request.headers.get("authorization", "")
        if path == _MODELS and not authorization:
            return await self.door.answer(request)
        try:
            return await self._answer(request, authorization.removeprefix("Bearer ").strip())
        except GeminiError as refusal:
            status, body, headers = openai_wire.refusal_body(refusal)
            return Response(orjson.dumps(body), status_code=status, media_type=_JSON, headers=headers)

    async def _answer(self, request: Request, key: str) -> Response:
        raw = await read_body(request, self.door.body_limit_bytes)
        self.door.seen.add(request, raw)
        path = request.url.path
        if request.method != ("GET" if path == _MODELS else "POST"):
            raise errors.path_not_found()
        if path == _MODELS:
            self.door.keys.admit(key, model="")
            return self._models()
        call = self._call(request, key, openai_wire.read_object(raw))
        fault = self.door.faults.strike(call.caller, call.model.id, call.method)
        refusal = fault.refusal(call.model.id, caller=call.caller) if fault else None
        if refusal is not None:
            raise refusal
        self.door.quotas.check(call.caller, call.model.id, service=errors.DEVELOPER)
        outcome = self._outcome(call)
        return self._delivery(call, outcome, fault, await self._booked(call, outcome, fault))

    def _call(self, request: Request, key: str, body: JsonObject) -> _Call:
        named = str(body.get("model", ""))
        caller = self.door.keys.admit(key, model=named)
        caller = Caller(caller.key_id, caller.project, self.door.listeners.region_of_port(request.scope))
        method = _METHODS[request.url.path]
        method = _STREAM if method == "generateContent" and body.get("stream") else method
        model = self.door.models.get(named)
        if model is None or method not in model.methods:
            raise GeminiError(404, "MODEL_NOT_FOUND", f"The model `{named[:80]}` does not exist.")
        return _Call(caller, model, method, body, request.headers.get("x-tollhouse-attempt-id"))

    def _models(self) -> Response:
        listed = [{"id": each.id, "object": "model", "owned_by": "simulator"} for each in self.door.models.all()]
        return Response(orjson.dumps({"object": "list", "data": listed}), media_type=_JSON)

    def _outcome(self, call: _Call) -> _Outcome:
        if call.method == "countTokens":
            return _counted(call)
        if call.method == "batchEmbedContents":
            return _embedded(call)
        prompt = Prompt.read(openai_wire.read_completion(call.body), call.model.id)
        cached = self.door.cache.cached_tokens(prompt, call.caller.project) if self.door.cache else 0
        whole = answer(prompt, call.model, surface=Surface(vertex=False), implicitly_cached=cached)
        return _streamed(call, whole) if call.method == _STREAM else _answered(whole)

    async def _booked(self, call: _Call, outcome: _Outcome, fault: FaultPlan | None) -> int | None:
        """Take the call from its quotas and write it to the log; give its place there, None for what is not billed."""
        if call.method == "countTokens":
            return None
        self.door.quotas.take(call.caller, call.model.id, partial(Load.of, outcome.usage, 0), service=errors.DEVELOPER)
        if fault is not None and not fault.served:
            return None
        row = CallRow(
            served_at_ms=time.time_ns() // 1_000_000,
            key_id=call.caller.key_id,
            project=call.caller.project,
            model=call.model.id,
            method=call.method,
            usage=orjson.dumps(outcome.usage),
            attempt_id=call.attempt_id,
            service_tier="standard",
            fault=fault.kind if fault else None,
            image_count=0,
            response_id=outcome.response_id,
            region=call.caller.region,
        )
        return await self.door.log.append(row)

    async def _amend(self, sequence: int, usage_so_far: list[JsonObject], sent: int) -> None:
        """Bill a stream whose client hung up for what it was sent."""
        await self.door.log.amend(sequence, orjson.dumps(usage_so_far[sent - 1]))

    def _delivery(self, call: _Call, outcome: _Outcome, fault: FaultPlan | None, sequence: int | None) -> Delivery:
        is_stream, speed = call.method == _STREAM, call.model.tokens_per_second
        writing = outcome.output_tokens / speed if speed else 0.0
        latency = call.model.latency_ms / 1_000
        can_hang_up = is_stream and sequence is not None
        return Delivery(
            outcome.pieces,
            framed=is_stream,
            media_type="text/event-stream" if is_stream else _JSON,
            headers={},
            pace=Pace(latency, writing / len(outcome.pieces)) if is_stream else Pace(latency + writing),
            fault=fault,
            on_hang_up=partial(self._amend, sequence or 0, outcome.usage_so_far) if can_hang_up else None,
        )


def _answered(whole: Answer) -> _Outcome:
    body = whole.body()
    return _Outcome(
        [orjson.dumps(openai_wire.completion(body))],
        _counts(whole.usage),
        whole.thoughts + whole.output.total(),
        body["responseId"],
    )


def _streamed(call: _Call, whole: Answer) -> _Outcome:
    bodies = chunks(whole)
    written = [(chunk, _counts(body.get("usageMetadata"))) for body in bodies for chunk in _pieces(body)]
    options = call.body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") and not whole.hides_usage:
        written.append((openai_wire.usage_chunk(bodies[-1]), _counts(whole.usage)))
    events = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk, _ in written] + [b"data: [DONE]\n\n"]
    so_far = [usage for _, usage in written] + [_counts(whole.usage)]
    tokens = whole.thoughts + whole.output.total()
    return _Outcome(events, _counts(whole.usage), tokens, bodies[-1]["responseId"], so_far)


def _pieces(body: JsonObject) -> list[JsonObject]:
    return list(openai_wire.completion_chunks(body))


def _counts(usage: JsonObject | None) -> JsonObject:
    """Keep what OpenAI's usage tells too: counts, without their modalities."""
    return {name: count for name, count in (usage or {}).items() if name.endswith("TokenCount")}


def _embedded(call: _Call) -> _Outcome:
    given = call.body.get("input") or []
    texts = [given] if isinstance(given, str) else given
    size = {"outputDimensionality": call.body["dimensions"]} if "dimensions" in call.body else {}
    requests = [{"content": {"parts": [{"text": str(text)}]}} | size for text in texts]
    vectors, counts = embeddings.embed_batch({"requests": requests}, call.model)
    found = [
        {"object": "embedding", "index": index, "embedding": vector["values"]} for index, vector in enumerate(vectors)
    ]
    tokens = {"prompt_tokens": counts.total(), "total_tokens": counts.total()}
    shown = {"object": "list", "model": call.model.id, "data": found, "usage": tokens}
    return _Outcome([orjson.dumps(shown)], _counts(embeddings.developer_usage(counts)))


def _counted(call: _Call) -> _Outcome:
    if "messages" in call.body:
        count = prompt_tokens(openai_wire.read_completion(call.body), call.model).total()
    else:
        count = text_tokens(str(call.body.get("prompt", "")))
    return _Outcome([orjson.dumps({"count": count, "max_model_len": call.model.input_token_limit})], {})
