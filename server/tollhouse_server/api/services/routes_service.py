"""GenerationService.ResolveRoute: where a call would go and why, with nothing sent and nothing booked."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tollhouse.v1 import generation_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.gemini_json import Mapper
from tollhouse_server.api.model_prices import model_prices
from tollhouse_server.api.routing_messages import (
    KIND_NUMBERS,
    PRIORITY_NUMBERS,
    AskedRouting,
    asked_routing,
    tier_choice_message,
)
from tollhouse_server.api.routing_policy_messages import origin_messages
from tollhouse_server.api.values import money, timestamp
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.generation.encoding import encoded
from tollhouse_server.generation.output_bounds import require_output_bound
from tollhouse_server.names import ProjectName, invalid
from tollhouse_server.pricing.ceiling import ceiling
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.routing.catalogue import Catalogue, Explanation, RouteRequest
from tollhouse_server.routing.route import LeftOut, OnDevice
from tollhouse_server.routing.targets import Target
from tollhouse_server.tenancy.project_paths import ProjectPaths


class RouteService:
    """Explains routes by the catalogue, the policies and the prices in force at the moment of the question."""

    def __init__(
        self,
        *,
        catalogue: Callable[[], Catalogue],
        price_book: Callable[[], PriceBook],
        project_paths: ProjectPaths,
        output_cap_tokens: int,
        labels: LiveBoundLabels,
    ) -> None:
        self._catalogue = catalogue
        self._price_book = price_book
        self._project_paths = project_paths
        self._output_cap_tokens = output_cap_tokens
        self._labels = labels
        self._mapper = Mapper()

    async def resolve_route(self, request: pb.ResolveRouteRequest, call: Call) -> pb.ResolveRouteResponse:
        asked = asked_routing(request.routing if request.HasField("routing") else request.call.routing)
        question = await self._question(request, call, asked)
        catalogue = self._catalogue()
        found = catalogue.explain(question).with_keys_only(lambda account_id: bool(catalogue.keys_of(account_id)))
        policy = found.route.policy
        answer = pb.ResolveRouteResponse(
            tier=found.route.tier,
            left_out=map(_left_out, found.route.left_out),
            tier_choice=None if found.route.choice is None else tier_choice_message(found.route.choice),
            policy_origins=origin_messages(policy),
            on_device_rule=None if found.rule is None else found.rule.name,
            priority=PRIORITY_NUMBERS[policy.granted(asked.priority)],
            resend_unknown_outcome=policy.may_resend_unknown(asked.resend_unknown_outcome),
        )
        self._judge(answer, found, question)
        return answer

    async def _question(self, request: pb.ResolveRouteRequest, call: Call, asked: AskedRouting) -> RouteRequest:
        tenant, path, project = await self._place(request, call)
        named: Any = request.call if request.HasField("call") else request
        return RouteRequest(
            method=request.method or "generateContent",
            at=datetime.now(UTC),
            tier=named.tier if named.HasField("tier") else None,
            model=named.model if named.HasField("model") else None,
            tenant_id=tenant,
            department_path=path,
            project_id=project,
            environment=call.principal.environment,
            region=asked.region,
            kinds=asked.kinds,
            allow_fallback=asked.allow_fallback,
            on_device=asked.on_device,
            labels=self._labels.on(
                request.labels or request.call.labels,
                tenant=tenant,
                project=project,
                credential=call.principal.credential_id,
            ),
            is_offline=request.offline,
            input_tokens=request.input_tokens if request.HasField("input_tokens") else None,
            body=self._body(request.call) if request.HasField("call") else None,
        )

    async def _place(self, request: pb.ResolveRouteRequest, call: Call) -> tuple[str, tuple[str, ...], str]:
        """Return tenant, departments and project that would pay; a credential without a project may name none."""
        principal = call.principal
        # In this order the permission was checked, too.
        parent = request.call.parent or request.parent
        if not parent:
            return principal.tenant_id, principal.department_ids, principal.project_id or ""
        project = ProjectName.parse(parent, "parent")
        return project.tenant, await self._project_paths.path_of(project), project.project

    def _body(self, request: pb.GenerateContentRequest) -> dict[str, Any]:
        try:
            body = self._mapper.to_canonical_json(request)
        except ValueError as error:
            raise invalid("call.extra", str(error)) from None
        require_output_bound(body)
        return body

    def _judge(self, answer: pb.ResolveRouteResponse, found: Explanation, question: RouteRequest) -> None:
        """Write the verdict, and what belongs to it."""
        is_for_device = found.rule is not None and question.on_device is not OnDevice.FORBIDDEN
        if is_for_device or question.on_device is OnDevice.REQUIRED:
            answer.verdict = pb.ROUTE_VERDICT_ON_DEVICE
        elif found.refusal is not None:
            answer.verdict = pb.ROUTE_VERDICT_REFUSED
            answer.refusal_reason, answer.refusal_message = found.refusal.reason, found.refusal.message()
        else:
            answer.verdict = pb.ROUTE_VERDICT_UPSTREAM
            answer.targets.extend(map(_target, found.route.targets))
            for one in found.route.retiring:
                answer.retiring.add(model=one.model, shutdown_time=timestamp(one.shutdown_at), successor=one.successor)
            self._price(answer, found.route.targets[0], question)

    def _price(self, answer: pb.ResolveRouteResponse, target: Target, question: RouteRequest) -> None:
        """Write the first target's prices and, for a body, what it can cost there; without a price nothing."""
        try:
            prices = self._price_book().terms(target.model, question.at, endpoint=target.endpoint)
            answer.prices.extend(model_prices(prices))
            if question.body is None or question.method == "countTokens":
                return
            model = self._catalogue().get_model(target.model)
            worst = ceiling(
                prices,
                model.bounds,
                question.body,
                request_bytes=len(encoded(question.body)),
                output_cap_tokens=self._output_cap_tokens,
            )
        except ModelUnpriced:
            return
        answer.cost_ceiling.CopyFrom(money(worst.cost_nanos))
        answer.input_tokens_ceiling, answer.output_tokens_ceiling = worst.input_tokens, worst.output_tokens


def _target(one: Target) -> pb.ResolvedTarget:
    return pb.ResolvedTarget(
        model=one.model,
        kind=KIND_NUMBERS[one.kind],
        account=one.account_id,
        region=one.region,
        rank=one.rank,
        weight=one.weight,
    )


def _left_out(one: LeftOut) -> pb.LeftOutTarget:
    return pb.LeftOutTarget(
        model=one.model,
        kind=pb.UPSTREAM_KIND_UNSPECIFIED if one.kind is None else KIND_NUMBERS[one.kind],
        account=one.account_id,
        region=one.region,
        reason=pb.LeftOutReason.Value(f"LEFT_OUT_REASON_{one.reason}"),
        detail=one.detail,
    )
