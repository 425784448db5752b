"""Statements, months and adjustments as messages."""

from collections.abc import Sequence

from tollhouse.admin.v1 import chargeback_pb2 as pb

from tollhouse_server.api.values import etag, money, timestamp
from tollhouse_server.chargeback.periods import Obstacle
from tollhouse_server.chargeback.statement import Amounts, Entry, Forecast, Part, Return, Seal, Statement, UsageLine
from tollhouse_server.chargeback.tables import AdjustmentRow, BillingPeriodRow
from tollhouse_server.names import AdjustmentName, DepartmentName, PeriodName, ProjectName


def statement_message(statement: Statement, *, with_lines: bool) -> pb.Statement:
    """Return a statement as a message."""
    return pb.Statement(
        parent=str(statement.scope),
        display_name=statement.display_name,
        month=statement.month,
        start_time=timestamp(statement.period.start),
        end_time=timestamp(statement.period.end),
        time_zone=statement.time_zone,
        fiscal=statement.is_fiscal,
        state=pb.Period.State.Value(f"STATE_{statement.state}"),
        generate_time=timestamp(statement.generated_at),
        totals=_amounts(statement.totals),
        lines=map(_line, statement.lines if with_lines else ()),
        entries=map(_entry, statement.entries),
        breakdowns=[
            pb.StatementBreakdown(dimension=dimension.value, parts=map(_part, parts))
            for dimension, parts in statement.breakdowns.items()
        ],
        labels=map(_part, statement.labels),
        savings=pb.StatementSavings(
            cache=money(statement.savings.cache_nanos),
            batch=money(statement.savings.batch_nanos),
            on_device=money(statement.savings.on_device_nanos),
        ),
        budgets=[
            pb.StatementBudget(
                limit=one.limit,
                scope=one.scope,
                display_name=one.display_name,
                amount=money(one.amount_nanos),
                used=money(one.used_nanos),
            )
            for one in statement.budgets
        ],
        price_versions=statement.price_versions,
        seal=None
        if statement.seal is None
        else seal_message(statement.seal, scope=str(statement.scope), month=statement.month),
        refusals=pb.StatementRefusals(calls=statement.refusals.calls, ceiling=money(statement.refusals.ceiling_nanos)),
        forecast=None if statement.forecast is None else _forecast(statement.forecast),
        returns=map(_return, statement.returns),
    )


def _forecast(forecast: Forecast) -> pb.StatementForecast:
    return pb.StatementForecast(
        expected=money(forecast.expected_nanos),
        low=money(forecast.low_nanos),
        high=money(forecast.high_nanos),
        confidence_percent=forecast.confidence_percent,
        reserve_percent=forecast.reserve_percent,
        recommended=money(forecast.recommended_nanos),
        expected_charge=money(forecast.expected_charge_nanos),
        low_charge=money(forecast.low_charge_nanos),
        high_charge=money(forecast.high_charge_nanos),
        recommended_charge=money(forecast.recommended_charge_nanos),
    )


def _return(one: Return) -> pb.StatementReturn:
    return pb.StatementReturn(
        unit=one.unit,
        units=one.units,
        alternative=money(one.alternative_nanos),
        actual=money(one.actual_nanos),
    )


def _amounts(amounts: Amounts) -> pb.StatementAmounts:
    return pb.StatementAmounts(
        calls=amounts.calls,
        input_tokens=amounts.input_tokens,
        cached_tokens=amounts.cached_tokens,
        output_tokens=amounts.output_tokens,
        thoughts_tokens=amounts.thoughts_tokens,
        images=amounts.images,
        cost=money(amounts.cost_nanos),
        suspense_calls=amounts.suspense_calls,
        suspense_cost=money(amounts.suspense_nanos),
        charge=money(amounts.charge_nanos),
    )


def _line(line: UsageLine) -> pb.StatementLine:
    return pb.StatementLine(
        department=line.department,
        project=line.project,
        tier=line.tier,
        model=line.model,
        sku=line.sku,
        unit=line.unit,
        quantity=line.quantity,
        calls=line.calls,
        cost=money(line.cost_nanos),
    )


def _entry(entry: Entry) -> pb.StatementEntry:
    return pb.StatementEntry(
        kind=pb.StatementEntry.Kind.Value(f"KIND_{entry.kind}"),
        amount=money(entry.amount_nanos),
        rule=entry.rule,
        reason=entry.reason,
        department=entry.department,
        project=entry.project,
        tier=entry.tier,
        model=entry.model,
        basis=None if entry.basis_nanos is None else money(entry.basis_nanos),
        for_month=entry.for_month,
    )


def _part(part: Part) -> pb.StatementPart:
    return pb.StatementPart(key=part.key, amounts=_amounts(part.amounts))


def seal_message(seal: Seal, *, scope: str, month: str) -> pb.StatementSeal:
    """Return the seal of a scope's statement as a message."""
    return pb.StatementSeal(
        scope=scope,
        month=month,
        sha256=seal.sha256,
        signature=seal.signature,
        key_version=seal.key_version,
        tree_size=seal.tree_size,
        leaf_index=seal.leaf_index,
        path=seal.path,
        close_time=timestamp(seal.closed_at),
        closer=seal.closed_by,
    )


def period_message(row: BillingPeriodRow, found: Sequence[Obstacle] = ()) -> pb.Period:
    """Return a month as a message."""
    return pb.Period(
        name=str(PeriodName(row.tenant_id, row.month)),
        state=pb.Period.State.Value(f"STATE_{row.state}"),
        start_time=timestamp(row.starts_at),
        end_time=timestamp(row.ends_at),
        fiscal=row.is_fiscal,
        obstacles=[
            pb.PeriodObstacle(
                kind=pb.PeriodObstacle.Kind.Value(f"KIND_{one.kind}"),
                description=one.description,
                count=one.count,
                amount=None if one.amount_nanos is None else money(one.amount_nanos),
            )
            for one in found
        ],
        preview_time=timestamp(row.previewed_at),
        previewer=row.previewed_by,
        close_time=timestamp(row.closed_at),
        closer=row.closed_by,
        sha256=row.sha256,
        etag=etag(row.version),
    )


def adjustment_message(row: AdjustmentRow) -> pb.Adjustment:
    """Return an adjustment as a message."""
    tenant, department, project = row.tenant_id, row.department_id, row.project_id
    return pb.Adjustment(
        name=str(AdjustmentName(tenant, row.adjustment_id)),
        month=row.month,
        amount=money(row.amount_nanos),
        reason=row.reason,
        department=str(DepartmentName(tenant, department)) if department else "",
        project=str(ProjectName(tenant, department, project)) if project else "",
        for_month=row.for_month,
        create_time=timestamp(row.created_at),
        creator=row.created_by,
    )
