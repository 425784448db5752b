"""Forecasts, simulations and alternative costs as they are told."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tollhouse.admin.v1 import limits_pb2
from tollhouse.admin.v1 import outlook_pb2 as pb

from tollhouse_server.api.limit_requests import quantity
from tollhouse_server.api.values import money, timestamp
from tollhouse_server.chargeback.charge_tables import AlternativeCostRow
from tollhouse_server.chargeback.forecast import Outlook
from tollhouse_server.chargeback.rerouting import Rerouting, RouteOutcome
from tollhouse_server.chargeback.simulation import LimitOutcome, Replay
from tollhouse_server.ledger.terms import LimitDefinition, Metric, Mode
from tollhouse_server.names import AlternativeCostName, LimitName

LIMIT_NOTES: Final = (
    "Calls that limits have refused in that month have no record, and are not replayed.",
    "A caller who is refused tries nothing else here; in life many calls are made again, later or smaller.",
    "Of tokens and images each call held here what it came to, of money what it really held.",
    "Windows are empty when the month begins; corrections of calls in suspense stay as they were booked.",
)
ROUTE_NOTES: Final = (
    "Another model answers the same prompt with another number of tokens; here it is the same.",
    "Calls in suspense and corrections are as they were booked; surcharges of an address are left out on the new way.",
)


def forecast_message(outlook: Outlook, *, parent: str, month: str, now: datetime) -> pb.Forecast:
    """Return a forecast, or why there is none."""
    message = pb.Forecast(
        parent=parent,
        month=month,
        generate_time=timestamp(now),
        booked=money(outlook.booked_nanos),
        history_days=outlook.history_days,
        days_to_come=outlook.days_to_come,
    )
    found = outlook.forecast
    if found is None:
        if outlook.reason is not None:
            message.obstacle = pb.Forecast.Obstacle.Value(f"OBSTACLE_{outlook.reason}")
        return message
    message.expected.CopyFrom(money(found.expected_nanos))
    message.low.CopyFrom(money(found.low_nanos))
    message.high.CopyFrom(money(found.high_nanos))
    message.confidence_percent = found.confidence_percent
    message.reserve_percent = found.reserve_percent
    message.recommended.CopyFrom(money(found.recommended_nanos))
    message.expected_charge.CopyFrom(money(found.expected_charge_nanos))
    message.low_charge.CopyFrom(money(found.low_charge_nanos))
    message.high_charge.CopyFrom(money(found.high_charge_nanos))
    message.recommended_charge.CopyFrom(money(found.recommended_charge_nanos))
    message.weekday_permille.extend(outlook.weekday_permille)
    message.level.CopyFrom(money(outlook.level_nanos))
    message.trend.CopyFrom(money(outlook.trend_nanos))
    return message


def replay_report(replay: Replay, limits: Sequence[LimitDefinition]) -> pb.SimulationReport:
    """Return what limits would have done."""
    return pb.SimulationReport(
        records=replay.records,
        booked=money(replay.booked_nanos),
        simulated=money(replay.booked_nanos - replay.refused_nanos),
        refused_calls=replay.refused_calls,
        limits=[_limit_outcome(replay.outcomes[limit.limit_id]) for limit in limits],
        notes=LIMIT_NOTES,
    )


def _limit_outcome(outcome: LimitOutcome) -> pb.SimulatedLimit:
    limit = outcome.limit
    return pb.SimulatedLimit(
        limit=limits_pb2.Limit(
            name=str(LimitName(limit.tenant_id, limit.name)),
            scope=limit.scope,
            metric=limits_pb2.LimitMetric.Value(f"LIMIT_METRIC_{limit.metric}"),
            window=limits_pb2.LimitWindow.Value(f"LIMIT_WINDOW_{limit.window}"),
            selector=limit.selector,
            mode=limits_pb2.LimitMode.Value(f"LIMIT_MODE_{limit.mode}"),
            amount=quantity(limit.amount, limit.metric),
            overshoot=quantity(limit.overshoot, limit.metric) if limit.mode is Mode.ELASTIC else None,
        ),
        refused_calls=outcome.refused_calls,
        refused_cost=money(outcome.refused_nanos),
        first_refusal_time=timestamp(outcome.first_refusal_at),
        peak=quantity(outcome.peak, Metric(limit.metric)),
    )


def rerouting_report(rerouting: Rerouting) -> pb.SimulationReport:
    """Return what routes would have changed."""
    return pb.SimulationReport(
        records=rerouting.records,
        booked=money(rerouting.booked_nanos),
        simulated=money(rerouting.simulated_nanos),
        moves=map(_move, rerouting.outcomes),
        notes=ROUTE_NOTES,
    )


def _move(outcome: RouteOutcome) -> pb.SimulatedMove:
    return pb.SimulatedMove(
        route=pb.SimulatedRoute(source=outcome.route.source, model=outcome.route.model),
        calls=outcome.calls,
        booked=money(outcome.booked_nanos),
        simulated=money(outcome.simulated_nanos),
        unpriced_calls=outcome.unpriced_calls,
    )


def alternative_message(row: AlternativeCostRow) -> pb.AlternativeCost:
    """Return an alternative cost."""
    return pb.AlternativeCost(
        name=str(AlternativeCostName(row.tenant_id, row.alternative_cost_id)),
        subject=row.subject,
        unit=row.unit,
        amount=money(row.unit_nanos),
        counting=pb.AlternativeCost.Counting.Value(f"COUNTING_{row.counted_by}"),
        start_date=row.starts_on.isoformat(),
        creator=row.creator,
        create_time=timestamp(row.created_at),
    )
