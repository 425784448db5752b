"""What requests about limits mean: amounts in the unit of their metric, and which combinations make sense."""

import secrets
from collections.abc import Collection, Sequence
from itertools import pairwise

from tollhouse.admin.v1 import limits_pb2 as pb

from tollhouse_server.api.values import money, nanos_of
from tollhouse_server.ledger.tables import LimitRow
from tollhouse_server.ledger.terms import Metric, Mode, Window
from tollhouse_server.money import MAX_NANOS
from tollhouse_server.names import LimitName, domain_of, invalid

CHANGEABLE = ("amount", "mode", "overshoot", "thresholds")

_MOST = MAX_NANOS
_DEFAULT_OVERSHOOT_PARTS = 10


def quantity(amount: int, metric: Metric) -> pb.LimitAmount:
    """Return an amount as it is written on the wire."""
    return pb.LimitAmount(money=money(amount)) if metric is Metric.COST else pb.LimitAmount(units=amount)


def amount_of(amount: pb.LimitAmount, metric: Metric, field: str) -> int:
    """Return an amount in the unit of its metric: nano-dollars for COST, else a count.

    Raises:
        InvalidRequest: it is absent, negative, or money where a count belongs.
    """
    wanted = "money" if metric is Metric.COST else "units"
    if amount.WhichOneof("amount") != wanted:
        raise invalid(f"{field}.{wanted}", f"is required for the metric {metric}, and nothing else")
    value = nanos_of(amount.money, f"{field}.money") if metric is Metric.COST else amount.units
    if value < 0:
        raise invalid(f"{field}.{wanted}", "must not be negative")
    return value


def positive_amount(amount: pb.LimitAmount, metric: Metric, field: str, *, beside: int) -> int:
    """Return an amount above zero that together with `beside` can still be counted.

    Raises:
        InvalidRequest: it is not, or what `amount_of` refuses.
    """
    value = amount_of(amount, metric, field)
    if value == 0:
        raise invalid(field, "must be more than zero")
    if value + beside > _MOST:
        raise invalid(field, "is more than can be counted together with the limit's amount")
    return value


def new_limit(request: pb.CreateLimitRequest) -> LimitRow:
    """Return the limit that a request asks for.

    Raises:
        InvalidRequest: a field is missing, or does not go with the others.
    """
    limit = request.limit
    if not limit.metric:
        raise invalid("limit.metric", "is required")
    if not limit.scope or domain_of(limit.scope) != domain_of(request.parent):
        raise invalid("limit.scope", "is required, and must be in the limit's own tenant")
    chosen = request.limit_id or f"l-{secrets.token_hex(8)}"
    name = LimitName.parse(f"{request.parent}/limits/{chosen}", "limit_id")
    metric = Metric(pb.LimitMetric.Name(limit.metric).removeprefix("LIMIT_METRIC_"))
    window, mode = _window(limit, metric), _mode(limit, metric) if limit.mode else Mode.STRICT
    amount = amount_of(limit.amount, metric, "limit.amount")
    return LimitRow(
        tenant_id=name.tenant,
        name=name.limit,
        scope=limit.scope,
        metric=metric,
        window=window,
        selector=limit.selector,
        mode=mode,
        amount=amount,
        overshoot=_overshoot(limit, metric, mode, amount),
        thresholds=_thresholds(limit.thresholds, metric, window),
    )


def changes(row: LimitRow, limit: pb.Limit, fields: Collection[str]) -> dict[str, object]:
    """Return the columns of `row` that change when `fields` of it become those of `limit`.

    Raises:
        InvalidRequest: a value does not go with what the limit is.
    """
    metric, mode, amount = Metric(row.metric), Mode(row.mode), row.amount
    if "mode" in fields:
        mode = _mode(limit, metric)
    if "amount" in fields:
        amount = amount_of(limit.amount, metric, "limit.amount")
    is_named = "overshoot" in fields
    if is_named or mode != row.mode:
        overshoot = _overshoot(limit if is_named else pb.Limit(), metric, mode, amount)
    else:
        overshoot = _countable_beside(row.overshoot, amount)
    values: dict[str, object] = {"mode": mode, "amount": amount, "overshoot": overshoot}
    if "thresholds" in fields:
        values["thresholds"] = _thresholds(limit.thresholds, metric, Window(row.window))
    return values


def _window(limit: pb.Limit, metric: Metric) -> Window:
    if metric is Metric.CONCURRENCY:
        if limit.window not in (pb.LIMIT_WINDOW_UNSPECIFIED, pb.LIMIT_WINDOW_TOTAL):
            raise invalid(
                "limit.window", "must be absent or TOTAL for CONCURRENCY: calls in flight belong to no window"
            )
        return Window.TOTAL
    if not limit.window:
        raise invalid("limit.window", "is required")
    return Window(pb.LimitWindow.Name(limit.window).removeprefix("LIMIT_WINDOW_"))


def _mode(limit: pb.Limit, metric: Metric) -> Mode:
    if not limit.mode:
        raise invalid("limit.mode", "is required")
    mode = Mode(pb.LimitMode.Name(limit.mode).removeprefix("LIMIT_MODE_"))
    if mode is Mode.ELASTIC and metric is Metric.CONCURRENCY:
        raise invalid("limit.mode", "must be STRICT or SOFT for CONCURRENCY: a call in flight is one call, never less")
    return mode


def _overshoot(limit: pb.Limit, metric: Metric, mode: Mode, amount: int) -> int:
    """Return how far an ELASTIC limit may be passed; a tenth of its amount, and at least one, where it is not said."""
    is_given = limit.HasField("overshoot")
    if mode is not Mode.ELASTIC:
        if is_given:
            raise invalid("limit.overshoot", f"is for the mode ELASTIC only, and this limit is {mode}")
        return 0
    if is_given:
        return positive_amount(limit.overshoot, metric, "limit.overshoot", beside=amount)
    return _countable_beside(max(1, -(-amount // _DEFAULT_OVERSHOOT_PARTS)), amount)


def _countable_beside(overshoot: int, amount: int) -> int:
    """Return `overshoot` unless it and `amount` are too much together."""
    if amount + overshoot > _MOST:
        raise invalid("limit.amount", "is more than can be counted together with the overshoot")
    return overshoot


def _thresholds(thresholds: Sequence[int], metric: Metric, window: Window) -> list[int]:
    if thresholds and metric is Metric.CONCURRENCY:
        raise invalid("limit.thresholds", "are not for CONCURRENCY: nothing of it is ever settled")
    if thresholds and window is Window.ROLLING_10_MINUTES:
        raise invalid("limit.thresholds", "are not for ROLLING_10_MINUTES: such a window never begins anew")
    if any(low >= high for low, high in pairwise(thresholds)):
        raise invalid("limit.thresholds", "must ascend, each one once")
    return list(thresholds)
