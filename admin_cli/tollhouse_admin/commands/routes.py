"""`tollhouse routes`: where a call would go and why, the models behind tiers, and routing policies."""

from typing import Annotated

import typer
from tollhouse.admin.v1 import routing_policies_pb2 as pb
from tollhouse.admin.v1.routing_policies_pb2_grpc import RoutingPolicyServiceStub
from tollhouse.v1 import generation_pb2
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tollhouse_admin.account_options import Upstream
from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.command import CHANGE, READ, Session, command, noun
from tollhouse_admin.commands import routing_policies
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import full_name, named
from tollhouse_admin.output import Format, Layout, note, show_list, show_one
from tollhouse_admin.prompts import destination, read_labels, read_prompt, user_turn
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import Department, Project, Tenant, project_name

app = noun("Routes: where a call would go and why, the models behind tiers, and routing policies.")
app.add_typer(routing_policies.app, name="policy")

TierId = Annotated[str, typer.Argument(metavar="TIER", autocompletion=complete_tiers, help="Id or name of the tier.")]

EXPLAINED = Layout(
    [
        ("state", lambda one: "target" if isinstance(one, generation_pb2.ResolvedTarget) else "left out"),
        *("rank", "weight", "model", "kind", "account", "region", "reason", "detail"),
    ]
)


def _stub(session: Session) -> RoutingPolicyServiceStub:
    return session.connection.stub(RoutingPolicyServiceStub)


def _read_tier(session: Session, name: str) -> pb.TierTargets:
    return session.connection.call(_stub(session).GetTierTargets, pb.GetTierTargetsRequest(name=name))


TIER = Kind(Layout(["name", "targets", "edited", "etag"]), _read_tier)


# --- where a call would go --------------------------------------------------------------------------------------------


@command(app, "explain", READ, as_caller=True)
def explain(
    session: Session,
    *,
    tier: Annotated[
        str | None,
        typer.Option(metavar="TIER", callback=named, autocompletion=complete_tiers, help="Tier; flash by default."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", callback=named, autocompletion=complete_models, help="Model or alias instead."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Prompt to price and to look at; - reads it from stdin.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Longest answer; needs --prompt.")
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Gemini's method; generateContent.")] = None,
    region: Annotated[str | None, typer.Option(metavar="REGION", help="Only in this region.")] = None,
    kind: Annotated[list[Upstream] | None, typer.Option(help="Only these upstreams; repeatable.")] = None,
    fallback: Annotated[bool | None, typer.Option("--fallback/--no-fallback", help="Beyond the first choice?")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label of the call.")] = None,
    input_tokens: Annotated[int | None, typer.Option(min=0, metavar="N", help="Size of the prompt.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="As a device without a network asks.")] = False,
    project: Project = None,
    department: Department = None,
    tenant: Tenant = None,
) -> None:
    """Explain where a call would go, what was left out and why, and what it could cost; nothing is sent."""
    if max_output_tokens is not None and prompt is None:
        raise wrong_usage("--max-output-tokens says nothing without a prompt", "Add --prompt.")
    where = destination(tier, model, default="flash")
    request = generation_pb2.ResolveRouteRequest(
        method=method or "",
        input_tokens=input_tokens,
        offline=offline or None,
        parent=project_name(session, project, department, tenant) if project else None,
        routing=generation_pb2.RoutingOptions(
            region=region, kinds=map(routing_policies.kind_number, kind or []), allow_fallback=fallback
        ),
        labels=read_labels(label or []),
    )
    if prompt is None:
        request.MergeFrom(generation_pb2.ResolveRouteRequest(tier=where.tier, model=where.model))
    else:
        request.call.MergeFrom(
            generation_pb2.GenerateContentRequest(
                contents=[user_turn(read_prompt(prompt))], tier=where.tier, model=where.model
            )
        )
        if max_output_tokens is not None:
            request.call.generation_config.max_output_tokens = max_output_tokens
    stub = session.connection.stub(GenerationServiceStub)
    _show(session.options.output, session.connection.call(stub.ResolveRoute, request))


def _show(form: Format, answer: generation_pb2.ResolveRouteResponse) -> None:
    """Write the targets with their ranks, then what was left out; the rest is said on stderr. JSON has all of it."""
    if form is Format.JSON:
        show_one(form, EXPLAINED, answer)
        return
    show_list(form, EXPLAINED, [*answer.targets, *answer.left_out])
    for line in _said(answer):
        note(line)


def _said(answer: generation_pb2.ResolveRouteResponse) -> list[str]:
    """Return what there is to say beside the table."""
    verdict = generation_pb2.RouteVerdict.Name(answer.verdict).removeprefix("ROUTE_VERDICT_").lower().replace("_", "-")
    lines = [f"verdict: {verdict}" + (f" ({answer.on_device_rule})" if answer.on_device_rule else "")]
    if answer.refusal_message:
        lines.append(f"{answer.refusal_reason}: {answer.refusal_message}")
    if answer.HasField("tier_choice"):
        choice = answer.tier_choice
        points = ", ".join(f"{one.name}={one.value} +{one.points}" for one in choice.features if one.points)
        limits = ", ".join(f"{one.tier} from {one.min_score}" for one in choice.thresholds)
        lines.append(f"tier auto: {choice.tier}, score {choice.score} ({points or 'nothing stands out'}; {limits})")
    if answer.HasField("cost_ceiling"):
        cents = answer.cost_ceiling
        lines.append(
            f"at most {cents.units}.{cents.nanos:09d} {cents.currency_code} at the first target "
            f"({answer.input_tokens_ceiling} tokens in, {answer.output_tokens_ceiling} out)"
        )
    lines += [f"{one.model} will be shut down; use {one.successor or 'another'}" for one in answer.retiring]
    lines += [f"policy {one.field}: {', '.join(one.scopes)}" for one in answer.policy_origins]
    return lines


# --- the models behind tiers ------------------------------------------------------------------------------------------


@command(app, "tier", READ)
def tier_targets(session: Session, tier: TierId) -> None:
    """Show the models behind a tier, with their ranks and weights; without a rank, each comes after those before it."""
    TIER.show(session, full_name(tier, "tiers"))


@command(app, "set-tier", CHANGE)
def set_tier(
    session: Session,
    tier: TierId,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="MODEL[,account=ID][,region=REGION][,rank=N][,weight=N]; one after the other unless ranks are equal.",
        ),
    ],
    *,
    etag: Etag = None,
) -> None:
    """Put other models behind a tier; targets of one rank share the traffic by weight."""
    name = full_name(tier, "tiers")
    request = pb.SetTierTargetsRequest(
        name=name, targets=[routing_policies.read_target(one) for one in targets], etag=etag or ""
    )
    TIER.change(session, "set", name, _stub(session).SetTierTargets, request)
