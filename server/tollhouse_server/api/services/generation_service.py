"""GenerationService: Gemini's messages in, Gemini's messages and the outcome out."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

from google.protobuf.message import Message
from tollhouse.v1.generation_pb2 import (
    CountTokensRequest,
    CountTokensResponse,
    EmbedContentRequest,
    EmbedContentResponse,
    GenerateContentRequest,
    GenerateContentResponse,
)

from tollhouse_server.api.call import Call
from tollhouse_server.api.gemini_json import Mapper
from tollhouse_server.api.outcomes import write_outcome
from tollhouse_server.api.routing_messages import SAYS_NOTHING, asked_routing
from tollhouse_server.api.splicing import Spliced
from tollhouse_server.chargeback.label_bounds import LabelBounds
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.generation.generate import Generation
from tollhouse_server.generation.streaming import Streaming
from tollhouse_server.ledger.terms import Scope
from tollhouse_server.long_values import LongMedia, answered_media
from tollhouse_server.names import ProjectName, invalid
from tollhouse_server.tenancy.project_paths import ProjectPaths
from tollhouse_server.upstream.protocol import Method

Response = TypeVar("Response", bound=Message)


class GenerationService:
    """Handlers of tollhouse.v1.GenerationService."""

    def __init__(
        self,
        *,
        generation: Generation,
        streaming: Streaming,
        project_paths: ProjectPaths,
        labels: LiveBoundLabels,
        label_bounds: LabelBounds,
    ) -> None:
        self._generation = generation
        self._streaming = streaming
        self._project_paths = project_paths
        self._labels = labels
        self._label_bounds = label_bounds
        self._mapper = Mapper()

    # No frame but one may have the request while the call is under way: it may be large. So these do not wait.

    def generate_content(self, request: GenerateContentRequest, call: Call) -> Awaitable[GenerateContentResponse]:
        """Serve a call and answer when it is booked."""
        return self._unary(Method.GENERATE, request, call, GenerateContentResponse)

    def count_tokens(self, request: CountTokensRequest, call: Call) -> Awaitable[CountTokensResponse]:
        """Count tokens with the model itself; free, and booked as one request."""
        return self._unary(Method.COUNT_TOKENS, request, call, CountTokensResponse)

    def embed_content(self, request: EmbedContentRequest, call: Call) -> Awaitable[EmbedContentResponse]:
        """Embed one or several contents."""
        return self._unary(Method.EMBED, request, call, EmbedContentResponse)

    async def stream_generate_content(
        self, request: GenerateContentRequest, call: Call
    ) -> AsyncIterator[GenerateContentResponse]:
        """Yield Gemini's chunks as they come, then one message with the outcome alone."""
        generation_call = await self._generation_call(Method.STREAM, request, call)
        del request
        async for item in self._streaming.stream(generation_call):
            if isinstance(item, Answer):
                yield self._response(item, GenerateContentResponse)
            else:
                yield self._mapper.to_message(dict(item), GenerateContentResponse)

    async def _unary(self, method: Method, request: Any, call: Call, response: type[Response]) -> Response:
        generation_call = await self._generation_call(method, request, call)
        del request
        return self._response(await self._generation.generate(generation_call), response)

    def _response(self, answer: Answer, response: type[Response]) -> Response:
        message: Any = self._mapper.to_message(answer.body, response)
        write_outcome(message.outcome, answer.outcome)
        media = [found for blob in answered_media(answer.body) if type(found := blob.get("data")) is LongMedia]
        if media:
            message = Spliced(message.SerializeToString(), media)
        return cast(Response, message)

    async def _generation_call(self, method: Method, request: Any, call: Call) -> GenerationCall:
        routing = asked_routing(request.routing) if request.HasField("routing") else SAYS_NOTHING
        scope = await self._scope(request, call)
        bound = self._labels.bound(tenant=scope.tenant_id, project=scope.project_id, credential=scope.credential_id)
        free = {name: value for name, value in getattr(request, "labels", {}).items() if name not in bound}
        return GenerationCall(
            scope=scope,
            request_id=UUID(request.request_id) if request.HasField("request_id") else uuid4(),
            method=method,
            tier=request.tier if request.HasField("tier") else None,
            model=request.model if request.HasField("model") else None,
            body=self._body(request),
            labels={**free, **bound},
            booked_labels={**await self._label_bounds.bounded(free, tenant=scope.tenant_id), **bound},
            environment=call.principal.environment,
            region=routing.region,
            kinds=routing.kinds,
            allow_fallback=routing.allow_fallback,
            resend_unknown=routing.resend_unknown_outcome,
            priority=routing.priority,
            on_device=routing.on_device,
            deadline=call.deadline,
            permit=call.permit,
            correlation_id=call.correlation_id,
            size_bytes=call.size_bytes,
        )

    def _body(self, request: Message) -> dict[str, Any]:
        """Return the REST body; known fields that arrived in `extra` under Google's other spelling are put right."""
        try:
            return self._mapper.to_canonical_json(request)
        except ValueError as error:
            raise invalid("extra", str(error)) from None

    async def _scope(self, request: Any, call: Call) -> Scope:
        principal = call.principal
        own = principal.project_id
        if request.HasField("parent"):
            project = ProjectName.parse(request.parent, "parent")
        elif own is None:
            raise invalid("parent", "must name a project, because the credential belongs to none")
        else:
            project = ProjectName(principal.tenant_id, principal.department_ids[-1], own)
        is_own = own is not None and (project.tenant, project.project) == (principal.tenant_id, own)
        path = principal.department_ids if is_own else await self._project_paths.path_of(project)
        return Scope(
            tenant_id=project.tenant,
            department_path=path,
            project_id=project.project,
            credential_id=principal.credential_id,
            credential_name=principal.credential_name,
            principal_id=principal.principal_id,
        )
