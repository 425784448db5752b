"""Gemini's REST paths: who calls, which method of which model, what it costs, what goes wrong on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import orjson
from starlette.requests import Request
from starlette.responses import Response

from tollhouse_server.simulator import embeddings, errors
from tollhouse_server.simulator.answers import Answer, answer
from tollhouse_server.simulator.bodies import read_body
from tollhouse_server.simulator.caching import ImplicitCache
from tollhouse_server.simulator.call_log import CallLog, CallRow
from tollhouse_server.simulator.delivery import Delivery, Pace
from tollhouse_server.simulator.errors import GeminiError, JsonObject
from tollhouse_server.simulator.faults import FaultPlan, FaultPlans
from tollhouse_server.simulator.keys import Caller, KeyBook
from tollhouse_server.simulator.listeners import Listeners
from tollhouse_server.simulator.models import Model, ModelList
from tollhouse_server.simulator.paths import Target
from tollhouse_server.simulator.prompts import Prompt
from tollhouse_server.simulator.quotas import Load, Quotas
from tollhouse_server.simulator.replay import Recording, Recordings
from tollhouse_server.simulator.requests_seen import RequestsSeen
from tollhouse_server.simulator.service_accounts import ServiceAccounts
from tollhouse_server.simulator.streaming import chunks
from tollhouse_server.simulator.tokens import billable_characters, cached_content_tokens, details, prompt_tokens
from tollhouse_server.simulator.usage import Surface
from tollhouse_server.simulator.wire import read_message

_MESSAGES = {
    "generateContent": "GenerateContentRequest",
    "streamGenerateContent": "GenerateContentRequest",
    "countTokens": "CountTokensRequest",
    "embedContent": "EmbedContentRequest",
    "batchEmbedContents": "BatchEmbedContentsRequest",
    "predict": "PredictRequest",
}
_STREAM = "streamGenerateContent"
_JSON = "application/json; charset=UTF-8"
_PAGE_SIZE = 50
_PAGE_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """A computed answer that is ready to be logged and sent."""

    pieces: list[JsonObject]
    usage: JsonObject
    service_tier: str
    images: int = 0
    output_tokens: int = 0
    is_stream: bool = False
    status: int = 200


@dataclass(frozen=True, slots=True)
class Door:
    """Answers one request after another; its parts hold all state."""

    models: ModelList
    keys: KeyBook
    faults: FaultPlans
    log: CallLog
    cache: ImplicitCache | None
    recordings: Recordings
    seen: RequestsSeen
    body_limit_bytes: int
    accounts: ServiceAccounts
    quotas: Quotas
    listeners: Listeners

    async def answer(self, request: Request) -> Response:
        """Answer a request, refusals included."""
        try:
            return await self._answer(request)
        except GeminiError as refusal:
            return Response(orjson.dumps(refusal.body()), status_code=refusal.code, media_type=_JSON)

    async def _answer(self, request: Request) -> Response:
        body = await read_body(request, self.body_limit_bytes)
        self.seen.add(request, body)
        target = Target.read(request.method, request.scope["path"])
        caller = self._caller(request, target)
        if target.method is None:
            return self._show_models(request, target)
        fault = self.faults.strike(caller, target.model or "", target.method)
        refusal = fault.refusal(target.model or "", caller=caller, service=target.service) if fault else None
        if refusal is not None:
            raise refusal
        self.quotas.check(caller, target.model or "", service=target.service)
        outcome = await self._outcome(request, target, caller, body)
        sequence = None
        if outcome.status == 200 and target.method != "countTokens":
            load = partial(Load.of, outcome.usage, outcome.images)
            self.quotas.take(caller, target.model or "", load, service=target.service)
            sequence = await self._log(request, target, caller, outcome, fault)
        return self._deliver(request, target, outcome, fault, sequence)

    def _caller(self, request: Request, target: Target) -> Caller:
        headers = request.headers
        secret = headers.get("x-goog-api-key") or request.query_params.get("key")
        token = "" if secret else headers.get("authorization", "")
        caller = self._bearer(token, target) if token or (target.vertex and not secret) else self._keyed(secret, target)
        region = target.region or self.listeners.region_of_port(request.scope)
        return Caller(caller.key_id, target.project or caller.project, region)

    def _keyed(self, secret: str | None, target: Target) -> Caller:
        return self.keys.admit(secret, model=target.model or "")

    def _bearer(self, authorization: str, target: Target) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or not token:
            raise errors.credentials_missing(target.service)
        grant = self.accounts.admit(token, project=target.project, service=target.service)
        if grant is None and not target.vertex:
            return self._keyed(token, target)
        name, project = (grant.private_key_id, grant.account.project) if grant else (token, "")
        model = target.model or ""
        key_id = self.keys.admit_token(name, service=target.service, model=model, vouched=grant is not None)
        return Caller(key_id, project)

    def _show_models(self, request: Request, target: Target) -> Response:
        if target.model is not None:
            model = self.models.get(target.model)
            if model is None:
                raise target.not_found("GetModel")
            return _json(model.publisher_resource() if target.vertex else model.resource())
        start, size = _page(request.query_params)
        models = self.models.all()
        page = models[start : start + size]
        shown: JsonObject = {"models": [each.resource() for each in page]}
        if target.vertex:
            shown = {"publisherModels": [each.publisher_resource() for each in page]}
        if start + size < len(models):
            shown["nextPageToken"] = str(start + size)
        return _json(shown)

    async def _outcome(self, request: Request, target: Target, caller: Caller, body: bytes) -> Outcome:
        recording = self.recordings.find(request.scope["path"], body, request.headers.get("x-simulator-replay"))
        if recording is not None:
            return _replayed(recording, target)
        model = self._model(target)
        message = read_message(body, _MESSAGES[target.method or ""])
        if target.method == "countTokens":
            return _counted(message, model, vertex=target.vertex)
        if target.method in {"generateContent", _STREAM}:
            return await self._generated(message, model, target, caller)
        return _embedded(message, model, target)

    def _model(self, target: Target) -> Model:
        model = self.models.get(target.model or "")
        if model is None or target.method not in model.methods:
            raise target.not_found(target.method or "")
        return model

    async def _generated(self, message: JsonObject, model: Model, target: Target, caller: Caller) -> Outcome:
        prompt = Prompt.read(message, model.id)
        cached = self.cache.cached_tokens(prompt, caller.project) if self.cache else 0
        tier = message.get("serviceTier", "").lower() or "standard"
        surface = Surface(target.vertex, tier)
        if model.makes_images:
            # Drawing takes tens of milliseconds, in which other calls should go on.
            whole = await asyncio.to_thread(answer, prompt, model, surface=surface, implicitly_cached=cached)
        else:
            whole = answer(prompt, model, surface=surface, implicitly_cached=cached)
        return _outcome(whole, surface, is_stream=target.method == _STREAM)

    async def _log(
        self, request: Request, target: Target, caller: Caller, outcome: Outcome, fault: FaultPlan | None
    ) -> int | None:
        """Write the call to the log and return its place there; None for what is never billed."""
        if fault is not None and not fault.served:
            return None
        row = CallRow(
            served_at_ms=time.time_ns() // 1_000_000,
            key_id=caller.key_id,
            project=caller.project,
            model=target.model or "",
            method=target.method or "",
            usage=orjson.dumps(outcome.usage),
            attempt_id=request.headers.get("x-tollhouse-attempt-id"),
            service_tier=outcome.service_tier,
            fault=fault.kind if fault else None,
            image_count=outcome.images,
            response_id=outcome.pieces[0].get("responseId"),
            region=caller.region,
        )
        return await self.log.append(row)

    async def _amend(self, sequence: int, pieces: list[JsonObject], sent: int) -> None:
        """Bill a stream whose client hung up for what it was sent: the counts of the last chunk that left."""
        usage = pieces[sent - 1].get("usageMetadata")
        if usage is not None:
            await self.log.amend(sequence, orjson.dumps(usage))

    def _deliver(
        self, request: Request, target: Target, outcome: Outcome, fault: FaultPlan | None, sequence: int | None
    ) -> Response:
        if outcome.status != 200:
            return Response(orjson.dumps(outcome.pieces[0]), status_code=outcome.status, media_type=_JSON)
        model = self.models.get(target.model or "")
        pace = _pace(model, outcome) if model else Pace()
        as_events = outcome.is_stream and request.query_params.get("alt") == "sse"
        media_type = "text/event-stream" if as_events else _JSON
        pieces = (
            _framed(outcome.pieces, as_events=as_events) if outcome.is_stream else [orjson.dumps(outcome.pieces[0])]
        )
        headers = {} if outcome.is_stream else {"x-gemini-service-tier": outcome.service_tier}
        return Delivery(
            pieces,
            framed=outcome.is_stream,
            media_type=media_type,
            headers=headers,
            pace=pace,
            fault=fault,
            on_hang_up=None if sequence is None else partial(self._amend, sequence, outcome.pieces),
        )


def _outcome(whole: Answer, surface: Surface, *, is_stream: bool) -> Outcome:
    return Outcome(
        pieces=chunks(whole) if is_stream else [whole.body()],
        usage=whole.usage,
        service_tier=surface.service_tier,
        images=whole.image_count,
        output_tokens=whole.thoughts + whole.output.total(),
        is_stream=is_stream,
    )


def _counted(message: JsonObject, model: Model, *, vertex: bool) -> Outcome:
    body = message.get("generateContentRequest") or message
    if not body.get("contents"):
        raise errors.invalid_argument("* CountTokensRequest.contents: contents is not specified\n")
    counts = prompt_tokens(body, model)
    shown: JsonObject = {"totalTokens": counts.total(), "promptTokensDetails": details(counts)}
    if cached_content_tokens(body):
        shown["cachedContentTokenCount"] = cached_content_tokens(body)
    if vertex:
        shown["totalBillableCharacters"] = billable_characters(body)
    return Outcome([shown], {}, "standard")


def _embedded(message: JsonObject, model: Model, target: Target) -> Outcome:
    if target.method == "predict":
        shown, counts = embeddings.predict(message, model)
        return Outcome([shown], embeddings.vertex_usage(counts), "standard")
    if target.method == "embedContent":
        vector, counts = embeddings.embed(message, model)
        shown = {"embedding": vector}
    else:
        vectors, counts = embeddings.embed_batch(message, model)
        shown = {"embeddings": vectors}
    usage = embeddings.vertex_usage(counts) if target.vertex else embeddings.developer_usage(counts)
    return Outcome([shown | {"usageMetadata": usage}], usage, "standard")


def _replayed(recording: Recording, target: Target) -> Outcome:
    return Outcome(
        list(recording.chunks),
        recording.usage,
        recording.usage.get("serviceTier", "standard"),
        is_stream=recording.is_stream or target.method == _STREAM,
        status=recording.status,
    )


def _page(parameters: Mapping[str, str]) -> tuple[int, int]:
    token, size = parameters.get("pageToken", "0") or "0", parameters.get("pageSize", str(_PAGE_SIZE))
    if not token.isdecimal() or not size.isdecimal():
        raise errors.invalid_argument("Invalid page token or page size.")
    return int(token), min(int(size) or _PAGE_SIZE, _PAGE_LIMIT)


def _pace(model: Model, outcome: Outcome) -> Pace:
    writing = outcome.output_tokens / model.tokens_per_second if model.tokens_per_second else 0.0
    if not outcome.is_stream:
        return Pace(model.latency_ms / 1_000 + writing)
    return Pace(model.latency_ms / 1_000, writing / len(outcome.pieces))


def _framed(bodies: list[JsonObject], *, as_events: bool) -> list[bytes]:
    if as_events:
        return [b"data: " + orjson.dumps(body) + b"\r\n\r\n" for body in bodies]
    last = len(bodies) - 1
    return [
        (b"[" if at == 0 else b",\r\n") + orjson.dumps(body) + (b"]" if at == last else b"\n")
        for at, body in enumerate(bodies)
    ]


def _json(shown: JsonObject) -> Response:
    return Response(orjson.dumps(shown), media_type=_JSON)
