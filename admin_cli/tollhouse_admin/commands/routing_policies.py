"""`tollhouse routes policy`: what a tenant, a department or a project allows and prefers in routing."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import Parse, ParseError
from tollhouse.admin.v1 import routing_policies_pb2 as pb
from tollhouse.admin.v1.routing_policies_pb2_grpc import RoutingPolicyServiceStub
from tollhouse.v1 import generation_pb2

from tollhouse_admin.account_options import Upstream
from tollhouse_admin.command import CHANGE, DESTROY, READ, Session, command, noun
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import enum_number
from tollhouse_admin.resource import Etag, Kind, mask
from tollhouse_admin.scopes import Department, Project, Scope, Tenant, scope_of

app = noun("Routing policies of a tenant, its departments and projects; without a scope, the tenant's.")


class Priority(StrEnum):
    """Classes of priority, the most important first."""

    CRITICAL = "critical"
    DEFAULT = "default"
    BATCH = "batch"
    SHEDDABLE = "sheddable"


class Field(StrEnum):
    """The fields of a policy that can be cleared."""

    ALLOWED_TIERS = "allowed_tiers"
    ALLOWED_MODELS = "allowed_models"
    ALLOWED_KINDS = "allowed_kinds"
    ALLOWED_REGIONS = "allowed_regions"
    HIGHEST_PRIORITY = "highest_priority"
    ON_DEVICE_RULES = "on_device_rules"
    TIER_OVERRIDES = "tier_overrides"
    ALLOW_FALLBACK = "allow_fallback"
    RESEND_UNKNOWN_OUTCOME = "resend_unknown_outcome"
    AUTO = "auto"
    DEPARTMENT_WEIGHTS = "department_weights"


Names = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only these; repeatable.")]


def _stub(session: Session) -> RoutingPolicyServiceStub:
    return session.connection.stub(RoutingPolicyServiceStub)


def _read(session: Session, name: str) -> pb.RoutingPolicy:
    return session.connection.call(_stub(session).GetRoutingPolicy, pb.GetRoutingPolicyRequest(name=name))


POLICY = Kind(Layout(["name", *(one.value for one in Field), "etag", "update_time"]), _read)


@command(app, "get", READ)
def get(
    session: Session,
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
) -> None:
    """Show what a scope says, and what is in force there with where each part comes from."""
    POLICY.show(session, _name(session, scope, tenant, department, project))


@command(app, "set", CHANGE)
def set_policy(
    session: Session,
    *,
    allow_tier: Names = None,
    allow_model: Names = None,
    allow_kind: Annotated[list[Upstream] | None, typer.Option(help="Only these upstreams; repeatable.")] = None,
    allow_region: Annotated[
        list[str] | None, typer.Option(metavar="REGION", help="europe-west4, europe-*, or global; repeatable.")
    ] = None,
    highest_priority: Annotated[Priority | None, typer.Option(help="The most important that calls may claim.")] = None,
    fallback: Annotated[
        bool | None, typer.Option("--fallback/--no-fallback", help="May calls go beyond a tier's first choice?")
    ] = None,
    resend: Annotated[
        bool | None, typer.Option("--resend/--no-resend", help="Send anew after an unknown outcome?")
    ] = None,
    auto: Annotated[bool | None, typer.Option("--auto/--no-auto", help="Tier auto, with its default points.")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(metavar="TIER=TARGET", help="Targets of a tier of its own, as in set-tier; repeatable."),
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="DEPARTMENT=N", help="Share of busy accounts; repeatable.")
    ] = None,
    clear: Annotated[list[Field] | None, typer.Option(help="Say nothing of this any more; repeatable.")] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of a policy as get writes it: all that it has is set; - is stdin."),
    ] = None,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    etag: Etag = None,
) -> None:
    """Change what a scope says; lists replace what there was, what is not given stays."""
    policy = read_policy(from_file) if from_file else pb.RoutingPolicy()
    given = pb.RoutingPolicy(
        allowed_tiers=_list(allow_tier),
        allowed_models=_list(allow_model),
        allowed_kinds=_kinds(allow_kind),
        allowed_regions=_list(allow_region),
        highest_priority=_priority(highest_priority),
        allow_fallback=fallback,
        resend_unknown_outcome=resend,
        auto=None if auto is None else pb.AutoRouting(enabled=auto),
        tier_overrides=_overrides(override or []),
        department_weights=_weights(weight or []),
    )
    policy.MergeFrom(given)
    fields = {descriptor.name for descriptor, _ in policy.ListFields()} & {one.value for one in Field}
    cleared = {one.value for one in clear or []}
    if twice := sorted(fields & cleared):
        raise wrong_usage(f"{twice[0]} is both set and cleared", "Give one of them.")
    if not fields and not cleared:
        raise wrong_usage("Nothing to change was given", "Give at least one option, --clear or --from-file.")
    policy.name = _name(session, scope, tenant, department, project)
    policy.etag = etag or ""
    request = pb.UpdateRoutingPolicyRequest(routing_policy=policy, update_mask=mask(sorted(fields | cleared)))
    POLICY.change(session, "set", policy.name, _stub(session).UpdateRoutingPolicy, request)


@command(app, "delete", DESTROY)
def delete(
    session: Session,
    *,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    project: Project = None,
    etag: Etag = None,
) -> None:
    """Let a scope say nothing any more; what the scopes above it say stays in force."""
    name = _name(session, scope, tenant, department, project)
    request = pb.DeleteRoutingPolicyRequest(name=name, etag=etag or "")
    warning = f"What {name} forbids will be allowed, as far as the scopes above it allow it."
    POLICY.change(session, "delete", name, _stub(session).DeleteRoutingPolicy, request, warning=warning)


def _name(session: Session, scope: str | None, tenant: str | None, department: str | None, project: str | None) -> str:
    found = scope_of(session, scope=scope, tenant=tenant, department=department, project=project)
    return f"{found}/routingPolicy"


def read_policy(file: Path) -> pb.RoutingPolicy:
    """Return the policy in a JSON file, `-` for stdin; what the server alone writes is left out.

    Raises:
        Failure: it cannot be read, or is not a policy.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        policy = Parse(text, pb.RoutingPolicy())
    except OSError as error:
        raise wrong_usage(f"{file} cannot be read: {error.strerror}") from error
    except (ParseError, UnicodeDecodeError) as error:
        raise wrong_usage(f"{file} is not a routing policy: {error}") from error
    for name in ("name", "etag", "effective", "effective_origins", "create_time", "update_time"):
        policy.ClearField(name)
    return policy


def read_target(text: str) -> pb.TierTarget:
    """Return a target typed as `MODEL[,account=ID][,region=REGION][,rank=N][,weight=N]`.

    Raises:
        Failure: it is not of this form.
    """
    model, *rest = text.split(",")
    values = dict(part.partition("=")[::2] for part in rest)
    wrong = sorted(values.keys() - {"account", "region", "rank", "weight"})
    numbers = {name: values[name] for name in ("rank", "weight") if name in values}
    if wrong or not model or not all(one.isascii() and one.isdigit() for one in numbers.values()):
        form = "MODEL[,account=ID][,region=REGION][,rank=N][,weight=N]"
        raise wrong_usage(f"{text!r} is not a target", f"Write it like {form}.")
    return pb.TierTarget(
        model=model.removeprefix("models/"),
        account=values.get("account", "").removeprefix("accounts/"),
        region=values.get("region", ""),
        rank=int(numbers["rank"]) if "rank" in numbers else None,
        weight=int(numbers["weight"]) if "weight" in numbers else None,
    )


def _list(names: list[str] | None) -> pb.NameList | None:
    return None if names is None else pb.NameList(names=sorted(set(names)))


def _kinds(names: list[Upstream] | None) -> pb.UpstreamKindList | None:
    return None if names is None else pb.UpstreamKindList(kinds=sorted(map(kind_number, set(names))))


def kind_number(kind: Upstream) -> "generation_pb2.UpstreamKind.ValueType":
    """Return a kind of upstream as the server has it."""
    return generation_pb2.UpstreamKind.ValueType(enum_number(generation_pb2.UpstreamKind.DESCRIPTOR, kind.value))


def _priority(priority: Priority | None) -> "generation_pb2.Priority.ValueType":
    if priority is None:
        return generation_pb2.PRIORITY_UNSPECIFIED
    return generation_pb2.Priority.ValueType(enum_number(generation_pb2.Priority.DESCRIPTOR, priority.value))


def _overrides(texts: list[str]) -> list[pb.TierOverride]:
    found: dict[str, list[pb.TierTarget]] = {}
    for text in texts:
        tier, sign, target = text.partition("=")
        if not sign or not tier:
            raise wrong_usage(f"{text!r} is not an override", "Write it like flash=gemini-3.5-flash,weight=2.")
        found.setdefault(tier.removeprefix("tiers/"), []).append(read_target(target))
    return [pb.TierOverride(tier=tier, targets=targets) for tier, targets in found.items()]


def _weights(texts: list[str]) -> dict[str, int]:
    found = {}
    for text in texts:
        department, _, number = text.partition("=")
        if not (number.isascii() and number.isdigit()):
            raise wrong_usage(f"{text!r} is not a weight", "Write it like research=3.")
        found[department.removeprefix("departments/")] = int(number)
    return found
