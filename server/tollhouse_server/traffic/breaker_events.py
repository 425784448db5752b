"""What breakers tell: a structured line and a count for each change, and their state as a metric."""

from collections.abc import Callable

import structlog

from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.breakers import BreakerChange, Cause, State

_log = structlog.get_logger(__name__)


def breaker_events(metrics: Metrics) -> Callable[[BreakerChange], None]:
    """Return what Breakers is to call at each change of one of them."""

    def tell(change: BreakerChange) -> None:
        account, region, model = change.key
        # One that is forgotten has had no call for long: nothing is left open.
        state = State.CLOSED if change.after is None else change.after
        forced = change.forced is not None
        metrics.breaker(account=account, region=region, model=model, state=state, forced=forced)
        if change.cause in {Cause.FIRST_CALL, Cause.IDLE}:
            return
        if change.before is not change.after:
            metrics.breaker_changed(account=account, region=region, model=model, state=state.name.lower())
        _write(change, state)

    return tell


def _write(change: BreakerChange, state: State) -> None:
    account, region, model = change.key
    write = _log.warning if state is State.OPEN else _log.info
    write(
        "breaker_changed",
        account=account,
        region=region,
        model=model,
        state=state.name.lower(),
        cause=change.cause.value,
        forced=change.forced.value.lower() if change.forced else None,
        calls=change.calls,
        failures=change.failures,
        retry_in_seconds=round(change.delay_seconds, 3),
    )
