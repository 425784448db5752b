"""How targets, breakers and orders look in a row."""

from collections.abc import Iterable
from decimal import Decimal

from tollhouse.admin.v1 import traffic_pb2 as pb
from tollhouse.v1 import generation_pb2

from tollhouse_admin.amounts import dollars_of_nanos, dollars_text
from tollhouse_admin.names import last_id
from tollhouse_admin.output import Layout
from tollhouse_admin.rendering import Cell, enum_text

_UNITS = {
    pb.HeadRoom.METRIC_REQUESTS_PER_MINUTE: "requests/min",
    pb.HeadRoom.METRIC_INPUT_TOKENS_PER_MINUTE: "tokens/min",
    pb.HeadRoom.METRIC_REQUESTS_PER_DAY: "requests/day",
    pb.HeadRoom.METRIC_IMAGES_PER_MINUTE: "images/min",
    pb.HeadRoom.METRIC_SPEND_PER_10_MINUTES: "spend/10min",
    pb.HeadRoom.METRIC_CONCURRENT_CALLS: "in flight",
}


def _state(breaker: pb.Breaker) -> str:
    """Return a breaker's state; `forced` where an order holds it, and in how many processes where not in all."""
    if breaker.state == pb.BREAKER_STATE_UNSPECIFIED:
        return "unused"
    text = enum_text(pb.BreakerState.DESCRIPTOR, breaker.state)
    if breaker.forced:
        return f"{text}, forced"
    troubled = breaker.open_process_count + breaker.half_open_process_count
    return f"{text} in {troubled} of {breaker.process_count}" if 0 < troubled < breaker.process_count else text


def _errors(breaker: pb.Breaker) -> str:
    """Return the share of failed calls; empty where none ended lately, which is not the same as none failed."""
    return f"{breaker.failure_count / breaker.call_count:.0%}" if breaker.call_count else ""


def _mean_seconds(breaker: pb.Breaker) -> Cell:
    return f"{breaker.mean_duration.ToTimedelta().total_seconds():.3f}" if breaker.HasField("mean_duration") else ""


def _left(one: pb.HeadRoom) -> float:
    return max(0, one.limit - one.used) / one.limit if one.limit else 0.0


def head_room_text(target: pb.Target) -> str:
    """Return what is left of the scarcest limit; `cooling down` while a 429 keeps calls away."""
    if target.HasField("cooling_end_time"):
        return "cooling down"
    return limit_text(target.head_rooms) if target.account or target.head_rooms else ""


def limit_text(head_rooms: Iterable[pb.HeadRoom]) -> str:
    """Return what is left of the scarcest limit."""
    scarcest = min(head_rooms, key=_left, default=None)
    if scarcest is None:
        return "no limits"
    used, limit = _amount(scarcest, scarcest.used), _amount(scarcest, scarcest.limit)
    return f"{_left(scarcest):.0%} ({used} of {limit} {_UNITS.get(scarcest.metric, '')})"


def _amount(one: pb.HeadRoom, amount: int) -> str:
    if one.metric != pb.HeadRoom.METRIC_SPEND_PER_10_MINUTES:
        return str(amount)
    return f"${dollars_text(Decimal(dollars_of_nanos(amount)))}"


def _kind(target: pb.Target) -> str:
    return enum_text(generation_pb2.UpstreamKind.DESCRIPTOR, target.upstream_kind)


TARGET = Layout(
    [
        ("tier", lambda one: last_id(one.tier)),
        *("rank", "weight"),
        ("account", lambda one: last_id(one.account) or "none"),
        ("kind", _kind),
        *("region", "model"),
        ("breaker", lambda one: _state(one.breaker) if one.account else ""),
        ("head_room", head_room_text),
        ("in_flight", lambda one: one.in_flight_count),
        ("calls", lambda one: one.breaker.call_count),
        ("errors", lambda one: _errors(one.breaker)),
        "breaker.change_time",
    ]
)
NARROW_TARGET = Layout(
    [
        ("tier", lambda one: last_id(one.tier)),
        ("account", lambda one: last_id(one.account) or "none"),
        "model",
        ("breaker", lambda one: _state(one.breaker) if one.account else ""),
        ("head_room", lambda one: head_room_text(one).partition(" (")[0]),
        ("in_flight", lambda one: one.in_flight_count),
        ("errors", lambda one: _errors(one.breaker)),
    ]
)
BREAKER = Layout(
    [
        ("account", lambda one: last_id(one.account)),
        *("region", "model"),
        ("breaker", _state),
        ("calls", lambda one: one.call_count),
        ("errors", _errors),
        ("mean_seconds", _mean_seconds),
        *("change_time", "probe_time"),
    ]
)
NARROW_BREAKER = Layout(
    [
        ("account", lambda one: last_id(one.account)),
        *("region", "model"),
        ("breaker", _state),
        ("errors", _errors),
    ]
)
ORDER = Layout(
    [
        ("account", lambda one: last_id(one.account)),
        ("region", lambda one: one.region or "all"),
        ("model", lambda one: one.model or "all"),
        *("state", "reason", "orderer", "expire_time", "update_time"),
    ]
)
