"""Charge rules between the wire and their rows."""

import secrets
from itertools import pairwise

from tollhouse.admin.v1 import charge_rules_pb2 as pb

from tollhouse_server.api.charge_dates import day_of, end_after, optional_day
from tollhouse_server.api.values import etag, money, nanos_of, timestamp, written
from tollhouse_server.chargeback.charge_tables import ChargeRuleRow
from tollhouse_server.chargeback.rates import RuleKind, name_of
from tollhouse_server.names import PLATFORM, ChargeRuleName, PlatformChargeRuleName, domain_of, invalid


def address_of(name: str, field: str = "name") -> tuple[str, str]:
    """Return the tenant, or `platform`, and the id of a rule's name.

    Raises:
        InvalidRequest: it is none.
    """
    if name.startswith("tenants/"):
        rule = ChargeRuleName.parse(name, field)
        return rule.tenant, rule.charge_rule
    return PLATFORM, PlatformChargeRuleName.parse(name, field).charge_rule


def new_rule(request: pb.CreateChargeRuleRequest, *, creator: str) -> ChargeRuleRow:
    """Return the rule that a request asks for.

    Raises:
        InvalidRequest: a field is missing, or does not go with the others.
    """
    asked = request.charge_rule
    tenant = domain_of(request.parent) if request.parent else PLATFORM
    starts_on = day_of(asked.start_date, "charge_rule.start_date")
    ends_on = optional_day(asked.end_date, "charge_rule.end_date")
    if ends_on is not None:
        end_after(ends_on, starts=starts_on, ended=None, field="charge_rule.end_date")
    chosen = request.charge_rule_id or f"cr-{secrets.token_hex(8)}"
    parent = f"{request.parent}/" if request.parent else ""
    row = ChargeRuleRow(
        tenant_id=tenant,
        rule_id=address_of(f"{parent}chargeRules/{chosen}", "charge_rule_id")[1],
        scope=_scope(asked.scope, tenant),
        selector=asked.selector,
        kind="",
        reason=written(asked.reason, "charge_rule.reason"),
        starts_on=starts_on,
        ends_on=ends_on,
        creator=creator,
    )
    _charge(asked, row)
    return row


def _scope(scope: str, tenant: str) -> str:
    if tenant == PLATFORM:
        if "/departments/" in scope:
            raise invalid("charge_rule.scope", "must be platform or a tenant: a rule of a department is its tenant's")
        return scope or PLATFORM
    if scope and domain_of(scope) != tenant:
        raise invalid("charge_rule.scope", "must be the rule's own tenant, or in it")
    return scope or f"tenants/{tenant}"


def _charge(asked: pb.ChargeRule, row: ChargeRuleRow) -> None:
    match asked.WhichOneof("charge"):
        case "rate_millionths":
            row.kind, row.rate_millionths = RuleKind.PERCENT, asked.rate_millionths
        case "monthly_amount":
            if asked.selector:
                raise invalid("charge_rule.selector", "does not go with an amount for each month")
            row.kind = RuleKind.FIXED
            row.amount_nanos = nanos_of(asked.monthly_amount, "charge_rule.monthly_amount")
        case "steps":
            row.kind, row.steps = RuleKind.STEPS, _steps(asked.steps)
        case _:
            raise invalid("charge_rule.charge", "one of rate_millionths, monthly_amount and steps is required")


def _steps(asked: pb.ChargeSteps) -> list[list[int]]:
    field = "charge_rule.steps.steps"
    steps = [[nanos_of(step.above, f"{field}.above"), step.rate_millionths] for step in asked.steps]
    if steps[0][0] < 0 or any(low[0] >= high[0] for low, high in pairwise(steps)):
        raise invalid(field, "must ascend from zero or more, each amount once")
    return steps


def rule_message(row: ChargeRuleRow) -> pb.ChargeRule:
    """Return a rule as it is written on the wire."""
    message = pb.ChargeRule(
        name=name_of(row),
        scope=row.scope,
        selector=row.selector,
        reason=row.reason,
        start_date=row.starts_on.isoformat(),
        end_date=row.ends_on.isoformat() if row.ends_on else "",
        creator=row.creator,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )
    match RuleKind(row.kind):
        case RuleKind.PERCENT:
            message.rate_millionths = row.rate_millionths
        case RuleKind.FIXED:
            message.monthly_amount.CopyFrom(money(row.amount_nanos))
        case RuleKind.STEPS:
            steps = [pb.ChargeStep(above=money(start), rate_millionths=rate) for start, rate in row.steps]
            message.steps.CopyFrom(pb.ChargeSteps(steps=steps))
    return message
