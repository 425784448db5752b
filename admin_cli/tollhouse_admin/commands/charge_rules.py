"""`tollhouse charge-rules`: mark-ups and discounts."""

from collections.abc import Iterable
from typing import Annotated

import typer
from tollhouse.admin.v1 import charge_rules_pb2 as pb
from tollhouse.admin.v1.charge_rules_pb2_grpc import ChargeRuleServiceStub

from tollhouse_admin.amounts import money_of, parse_dollars
from tollhouse_admin.catalog import complete_models, complete_tiers
from tollhouse_admin.charge_options import Why, parse_day, parse_pairs, parse_percent, signed_money
from tollhouse_admin.command import CHANGE, LIST, READ, Session, command, noun
from tollhouse_admin.connection import Connection
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.names import named
from tollhouse_admin.output import Layout
from tollhouse_admin.resource import Etag, Kind
from tollhouse_admin.scopes import (
    OFFERED,
    Department,
    Scope,
    Tenant,
    complete_in_tenant,
    in_tenant,
    scope_of,
    tenant_name,
)

app = noun("Mark-ups and discounts: by how much a charge differs from the list price, for whom and when.")


def _rules(connection: Connection, tenant: str) -> Iterable[pb.ChargeRule]:
    stub = connection.stub(ChargeRuleServiceStub)
    request = pb.ListChargeRulesRequest(parent=tenant)
    return connection.pages(stub.ListChargeRules, request, "charge_rules", limit=OFFERED)


RuleId = Annotated[str, typer.Argument(metavar="RULE", help="Id or name.", autocompletion=complete_in_tenant(_rules))]
Platform = Annotated[bool, typer.Option("--platform", help="The platform's own, for all tenants or for one.")]


def _stub(session: Session) -> ChargeRuleServiceStub:
    return session.connection.stub(ChargeRuleServiceStub)


def _read(session: Session, name: str) -> pb.ChargeRule:
    return session.connection.call(_stub(session).GetChargeRule, pb.GetChargeRuleRequest(name=name))


RULE = Kind(
    Layout(
        [
            *("name", "scope", "selector", "rate_millionths", "monthly_amount", "steps.steps"),
            *("start_date", "end_date", "reason", "creator"),
        ]
    ),
    _read,
)


@command(app, "create", CHANGE)
def create(
    session: Session,
    reason: Why,
    begins: Annotated[str, typer.Option("--from", metavar="DAY", help="First day: 2026-12-01, or today.")],
    *,
    percent: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="So much of the cost: 5 is more, -2.5 is less.")
    ] = None,
    monthly: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="US dollars for each month; negative: off it.")
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(metavar="AMOUNT=PERCENT", help="For what is above that cost of the month; several times."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="First day on which it holds no more; absent: it goes on.")
    ] = None,
    rule: Annotated[str | None, typer.Argument(metavar="ID", help="Its id; absent: the server chooses.")] = None,
    platform: Platform = False,
    scope: Scope = None,
    tenant: Tenant = None,
    department: Department = None,
    tier: Annotated[
        str | None,
        typer.Option(metavar="TIER", callback=named, autocompletion=complete_tiers, help="Only calls of this tier."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", callback=named, autocompletion=complete_models, help="Only calls of this model."),
    ] = None,
) -> None:
    """Begin a rule; all rules that apply add up, each on the list price."""
    if sum(bool(one) for one in (percent, monthly, step)) != 1:
        raise wrong_usage("How much is not said, or twice", "Give one of --percent, --monthly and --step.")
    if platform:
        where = scope_of(session, scope=None, tenant=tenant, department=None, project=None) if tenant else "platform"
        parent, place = "", ""
    else:
        where = scope_of(session, scope=scope, tenant=tenant, department=department, project=None)
        parent = "/".join(where.split("/")[:2])
        place = f"{parent}/"
    resource = pb.ChargeRule(
        scope=where,
        selector=_selector(tier, model),
        reason=reason,
        start_date=parse_day(begins),
        end_date=parse_day(until) if until else "",
        monthly_amount=signed_money(monthly) if monthly else None,
        steps=_steps(step) if step else None,
    )
    if percent:
        resource.rate_millionths = parse_percent(percent)
    name = f"{place}chargeRules/{rule}" if rule else f"a charge rule on {where}"
    request = pb.CreateChargeRuleRequest(parent=parent, charge_rule_id=rule or "", charge_rule=resource)
    RULE.create(session, name, _stub(session).CreateChargeRule, request)


def _steps(typed: list[str]) -> pb.ChargeSteps:
    amounts = {
        parse_dollars(amount): parse_percent(percent)
        for amount, percent in parse_pairs(typed, example="1000=-5").items()
    }
    steps = [pb.ChargeStep(above=money_of(above), rate_millionths=amounts[above]) for above in sorted(amounts)]
    return pb.ChargeSteps(steps=steps)


def _selector(tier: str | None, model: str | None) -> str:
    if tier and model:
        raise wrong_usage("A rule is about one tier or one model", "Give --tier or --model, not both.")
    if tier:
        return f"tiers/{tier.removeprefix('tiers/')}"
    return f"models/{model.removeprefix('models/')}" if model else ""


@command(app, "list", LIST)
def list_rules(
    session: Session,
    *,
    on: Annotated[str | None, typer.Option(metavar="DAY", help="Only those in force on this day.")] = None,
    platform: Platform = False,
    tenant: Tenant = None,
    department: Department = None,
) -> None:
    """List a tenant's rules, or those of the platform; with a department only those on exactly that."""
    parent = "" if platform else tenant_name(session, tenant)
    narrowed = scope_of(session, scope=None, tenant=parent, department=department, project=None) if department else ""
    request = pb.ListChargeRulesRequest(parent=parent, scope=narrowed, on_date=parse_day(on) if on else "")
    RULE.show_pages(session, _stub(session).ListChargeRules, request, "charge_rules", within=narrowed)


def _named(session: Session, rule: str, tenant: str | None, *, platform: bool) -> str:
    if platform or rule.startswith("chargeRules/"):
        return f"chargeRules/{rule.removeprefix('chargeRules/')}"
    return in_tenant(session, rule, "chargeRules", tenant)


@command(app, "show", READ)
def show(session: Session, rule: RuleId, *, platform: Platform = False, tenant: Tenant = None) -> None:
    """Show one rule, ended or not."""
    RULE.show(session, _named(session, rule, tenant, platform=platform))


@command(app, "end", CHANGE)
def end(
    session: Session,
    rule: RuleId,
    day: Annotated[str, typer.Option("--on", metavar="DAY", help="First day on which it holds no more.")],
    *,
    platform: Platform = False,
    tenant: Tenant = None,
    etag: Etag = None,
) -> None:
    """End a rule; its numbers never change. On its first day: as if it had never been."""
    name = _named(session, rule, tenant, platform=platform)
    request = pb.EndChargeRuleRequest(name=name, end_date=parse_day(day), etag=etag or "")
    RULE.change(session, "end", name, _stub(session).EndChargeRule, request)
