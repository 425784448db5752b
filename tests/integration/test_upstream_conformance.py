"""What our clients send is what google-genai 3.4 sends for the same request, feature by feature.

Each feature of GenerateContentRequest (`tests/drivers/features.py` walks the schema) goes out through the SDK and
through us to the same server, for both APIs. Names are compared in lowerCamel: the SDK writes some in snake_case,
which protobuf's JSON takes as well (protobuf.dev/programming-guides/json). What the SDK cannot send is listed with
the reason.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from tollhouse.v1 import generation_pb2
from tollhouse_server.api.gemini_json import Mapper
from tollhouse_server.upstream.protocol import Destination, Method, UpstreamCall, UpstreamKind
from tollhouse_server.upstream.upstreams import open_upstreams

from tests.drivers.features import features
from tests.drivers.wire import Seen, Server, Wire, answer, serving

MODEL, KEY, PROJECT, REGION = "gemini-3.5-flash", "the-key", "the-project", "europe-west4"
CONTENTS = [{"role": "user", "parts": [{"text": "How long is the bridge?"}]}]
PLAIN: dict[str, Any] = {"contents": CONTENTS}
EMBEDDED = {"content": CONTENTS[0], "taskType": "CLUSTERING", "title": "Bridges", "outputDimensionality": 8}
FEATURES = dict(features(generation_pb2.GenerateContentRequest.DESCRIPTOR))
MAPPER = Mapper()

OF_THE_CLIENT = {"user-agent", "x-goog-api-client", "accept", "accept-encoding", "content-length", "connection", "host"}
"""Headers that name a client or belong to its HTTP."""

_LIVE = "a member of the Live API and of batches in google-genai, not of its GenerateContentConfig"
_VERTEX = "google-genai refuses it for the Developer API: only Vertex AI has it"
_DEVELOPER = "google-genai refuses it for Vertex AI: only the Developer API has it"
_VOICE = "generationConfig.speechConfig.{}voiceConfig.replicatedVoiceConfig.{}"
_VOICES = ("", "multiSpeakerVoiceConfig.speakerVoiceConfigs.")
UNSENDABLE: Mapping[UpstreamKind, Mapping[str, str]] = {
    UpstreamKind.GEMINI_API: {
        "generationConfig.enableAffectiveDialog": _LIVE,
        "generationConfig.translationConfig": _LIVE,
        **{
            f"{place}.parts.functionCall.{name}": _VERTEX
            for place in ("contents", "systemInstruction")
            for name in ("partialArgs", "willContinue")
        },
        **dict.fromkeys(
            (
                "tools.googleSearch.excludeDomains",
                "tools.googleSearch.blockingConfidence",
                "tools.googleMaps.authConfig",
                "tools.enterpriseWebSearch",
                "tools.retrieval",
                "toolConfig.functionCallingConfig.streamFunctionCallArguments",
                "safetySettings.method",
                "generationConfig.responseSchema.additionalProperties",
                "generationConfig.imageConfig.personGeneration",
                "generationConfig.imageConfig.prominentPeople",
                "generationConfig.imageConfig.outputMimeType",
                "generationConfig.imageConfig.outputCompressionQuality",
                "generationConfig.imageConfig.imageOutputOptions",
                "generationConfig.audioTimestamp",
                "generationConfig.routingConfig",
                "generationConfig.modelSelectionConfig",
                "modelArmorConfig",
            ),
            _VERTEX,
        ),
    },
    UpstreamKind.VERTEX: {
        "generationConfig.enableAffectiveDialog": _LIVE,
        "generationConfig.translationConfig": _LIVE,
        **{
            f"{place}.parts.{name}": _DEVELOPER
            for place in ("contents", "systemInstruction")
            for name in ("functionResponse.willContinue", "toolCall", "toolResponse", "partMetadata")
        },
        **{
            _VOICE.format(voice, name): _DEVELOPER
            for voice in _VOICES
            for name in ("consentAudio", "voiceConsentSignature")
        },
        "tools.fileSearch": _DEVELOPER,
        "tools.mcpServers.name": "google-genai wants the package mcp for it, and connects to the server itself",
        "tools.mcpServers.streamableHttpTransport": _DEVELOPER,
        "toolConfig.includeServerSideToolInvocations": _DEVELOPER,
        "generationConfig.enableEnhancedCivicAnswers": _DEVELOPER,
    },
}
"""By API: paths of features, or of messages that hold them, and why the SDK cannot send them."""

ALONE = {
    "tools.functionDeclarations": "the SDK gathers those of all tools in one; we leave the caller's tools as they are",
    "generationConfig.imageConfig.outputMimeType": "another name for a member of imageOutputOptions",
    "generationConfig.imageConfig.outputCompressionQuality": "another name for a member of imageOutputOptions",
}
"""What the SDK sends otherwise when it is not alone."""

OPEN = {"searchTypes", "authConfig", "retrieval", "routingConfig", "modelConfig"}
"""Members that the schema leaves open, in which the SDK writes names in snake_case."""


@dataclass(frozen=True, slots=True)
class Api:
    """One of Google's APIs: the SDK's way to it and ours."""

    kind: UpstreamKind
    server: Server
    sdk: Any
    ours: Callable[[UpstreamCall], Awaitable[Any]]

    async def theirs(self, send: Callable[[Any], Awaitable[Any]]) -> Seen:
        """Return what the SDK sends."""
        await send(self.sdk.models)
        return self.server.seen.pop()

    async def sent(self, body: Mapping[str, Any], method: Method = Method.GENERATE, model: str = MODEL) -> Seen:
        """Return what we send."""
        where = Destination(
            kind=self.kind, base_url=self.server.url, api_version="v1beta", model=model, project=PROJECT, region=REGION
        )
        await self.ours(
            UpstreamCall(
                attempt_id=UUID(int=7),
                destination=where,
                method=method,
                body=json.dumps(body, separators=(",", ":")).encode(),
                timeout_seconds=5.0,
                key=KEY,
            )
        )
        return self.server.seen.pop()


@pytest.fixture(params=[UpstreamKind.GEMINI_API, UpstreamKind.VERTEX])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """Each API, at a server that answers everything."""

    async def script(wire: Wire) -> None:
        while (seen := await wire.request()) is not None:
            server.seen.append(seen)
            body = b'{"predictions":[],"candidates":[{"content":{"role":"model","parts":[{"text":"x"}]}}]}'
            await wire.say(answer(b"data: " + body + b"\n\n" if "alt=sse" in seen.target else body))

    async with serving(script) as server, open_upstreams() as upstreams:
        retries = types.HttpRetryOptions(attempts=1)
        options = types.HttpOptions(base_url=server.url, api_version="v1beta", retry_options=retries)
        vertex = {"vertexai": True, "project": PROJECT, "location": REGION, "credentials": Credentials(KEY)}  # type: ignore[no-untyped-call]
        is_vertex = request.param is UpstreamKind.VERTEX
        sdk = genai.Client(**(vertex if is_vertex else {"api_key": KEY}), http_options=options).aio

        async def ours(call: UpstreamCall) -> None:
            if call.method is Method.STREAM:
                assert [chunk async for chunk in upstreams.stream(call)]
            else:
                await upstreams.call(call)

        yield Api(request.param, server, sdk, ours)
        await sdk.aclose()


def content_of(body: Mapping[str, Any]) -> list[types.Content]:
    """Return the contents as the SDK's objects."""
    return [types.Content.model_validate_json(json.dumps(content)) for content in body["contents"]]


def config_of(body: Mapping[str, Any]) -> types.GenerateContentConfig:
    """Return the rest of a body as the SDK takes it, with everything off that would make it send twice."""
    beside = {name: value for name, value in body.items() if name not in {"contents", "generationConfig"}}
    off = {"automaticFunctionCalling": {"disable": True}, "automaticContinuation": False}
    values = {**body.get("generationConfig", {}), **beside, **off}
    return types.GenerateContentConfig.model_validate_json(json.dumps(values))


def generate(body: Mapping[str, Any]) -> Callable[[Any], Awaitable[Any]]:
    """Return the SDK's unary call for a body."""
    contents, config = content_of(body), config_of(body)
    return lambda models: models.generate_content(model=MODEL, contents=contents, config=config)


def compared(seen: Seen, kind: UpstreamKind) -> dict[str, Any]:
    """Return all of a request that must be equal."""
    headers = {name: value for name, value in seen.headers.items() if name not in OF_THE_CLIENT}
    headers.pop("x-tollhouse-attempt-id", None)
    return {"method": seen.method, "target": seen.target, "headers": headers, "body": canonical(seen)}


def canonical(seen: Seen) -> Any:
    """Return a generation's body with its names in lowerCamel, without the empty configuration that the SDK adds."""
    body = with_open_members(MAPPER.canonical(json.loads(seen.body), generation_pb2.GenerateContentRequest))
    if body.get("generationConfig") == {}:
        del body["generationConfig"]
    return body


def with_open_members(value: Any, *, is_open: bool = False) -> Any:
    """Return JSON with the names inside open members in lowerCamel."""
    if isinstance(value, list):
        return [with_open_members(one, is_open=is_open) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        to_camel(name) if is_open else name: with_open_members(one, is_open=is_open or name in OPEN)
        for name, one in value.items()
    }


async def outcome(api: Api, path: str) -> str:
    """Return how a feature fares: equal, different, or why the SDK does not send it."""
    body = FEATURES[path] if path.startswith("contents.") else PLAIN | FEATURES[path]
    try:
        theirs = await api.theirs(generate(body))
    except (ValidationError, ValueError, ImportError) as error:
        return f"unsendable: {error}"
    ours = await api.sent(MAPPER.to_json(MAPPER.to_message(body, generation_pb2.GenerateContentRequest)))
    return "equal" if compared(ours, api.kind) == compared(theirs, api.kind) else f"different: {theirs.body.decode()}"


def covered(path: str, listed: Mapping[str, str]) -> bool:
    """Tell whether a path or something that holds it is listed."""
    return any(path == one or path.startswith(f"{one}.") for one in listed)


async def test_every_feature_goes_out_as_the_sdk_sends_it(api: Api) -> None:
    """Method, path, headers and body; the list of exceptions is exact."""
    listed = UNSENDABLE[api.kind]

    outcomes = {path: await outcome(api, path) for path in FEATURES}

    others = {path: text for path, text in outcomes.items() if text != "equal"}
    assert {path: text for path, text in others.items() if not covered(path, listed)} == {}
    assert {path for path in outcomes if covered(path, listed)} == set(others)
    assert [one for one in listed if not any(covered(path, {one: ""}) for path in others)] == []
    assert len(outcomes) - len(others) > 180


async def test_a_stream_goes_out_as_the_sdk_sends_it(api: Api) -> None:
    """All features together that the API has, in one request."""
    listed = {**UNSENDABLE[api.kind], **ALONE}
    paths = [path for path in FEATURES if not covered(path, listed)]
    body = merged(PLAIN, *(FEATURES[path] for path in paths))

    async def stream(models: Any) -> None:
        contents, config = content_of(body), config_of(body)
        async for _ in await models.generate_content_stream(model=MODEL, contents=contents, config=config):
            pass

    theirs, ours = await api.theirs(stream), await api.sent(body, Method.STREAM)

    assert "alt=sse" in ours.target
    assert len(ours.body) > 3000
    assert compared(ours, api.kind) == compared(theirs, api.kind)


async def test_tokens_are_counted_as_the_sdk_has_them_counted(api: Api) -> None:
    """Vertex AI takes more than contents beside them; the Developer API wants a whole request in a wrapper."""
    more = {"systemInstruction": CONTENTS[0], "tools": [{"googleSearch": {}}], "generationConfig": {"temperature": 0.5}}
    is_vertex = api.kind is UpstreamKind.VERTEX
    body = PLAIN | (more if is_vertex else {})
    beside = {name: value for name, value in body.items() if name != "contents"}
    config = types.CountTokensConfig.model_validate_json(json.dumps(beside))

    theirs = await api.theirs(lambda models: models.count_tokens(model=MODEL, contents=content_of(body), config=config))
    ours = await api.sent(body, Method.COUNT_TOKENS)
    whole = await api.sent(PLAIN | more, Method.COUNT_TOKENS)

    assert compared(ours, api.kind) == compared(theirs, api.kind)
    wrapped = {"generateContentRequest": {"model": f"models/{MODEL}", **PLAIN, **more}}
    assert json.loads(whole.body) == (PLAIN | more if is_vertex else wrapped)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2", "text-multilingual-embedding-002"])
async def test_embeddings_go_out_as_the_sdk_sends_them(api: Api, model: str, count: int) -> None:
    """One form on the Developer API, three on Vertex AI by the model and the number of contents."""
    is_vertex = api.kind is UpstreamKind.VERTEX
    request = EMBEDDED | {"model": f"models/{model}"} | ({"autoTruncate": True} if is_vertex else {})
    contents = [types.Content.model_validate(CONTENTS[0]) for _ in range(count)]
    beside = {name: value for name, value in request.items() if name not in {"content", "model"}}
    config = types.EmbedContentConfig.model_validate(beside)

    theirs = await api.theirs(lambda models: models.embed_content(model=model, contents=contents, config=config))
    ours = await api.sent({"requests": [request] * count}, Method.EMBED, model)

    assert json.loads(ours.body) == json.loads(theirs.body)
    assert (ours.target, ours.method) == (theirs.target, theirs.method)


def merged(*bodies: Mapping[str, Any]) -> dict[str, Any]:
    """Return one body with the members of all; lists are joined."""
    whole: dict[str, Any] = {}
    for body in bodies:
        for name, value in body.items():
            known = whole.get(name)
            if isinstance(known, dict):
                whole[name] = merged(known, value)
            elif isinstance(known, list):
                whole[name] = known + value
            else:
                whole[name] = value
    return whole
