"""What is reported of upstream targets."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import upstream as declared
from tollhouse_server.telemetry.families import counter, gauge, gauges, histograms, lone_counter


class UpstreamMetrics:
    """What is reported of upstream targets; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._upstream_attempts = counter(declared.UPSTREAM_ATTEMPTS, registry)
        self._upstream_duration = histograms(declared.UPSTREAM_DURATION, registry)
        self._upstream_first_chunk = histograms(declared.UPSTREAM_FIRST_CHUNK, registry)
        self._waiting_calls = gauges(declared.WAITING_CALLS, registry)
        self._call_wait = histograms(declared.CALL_WAIT, registry)
        self._shed_calls = counter(declared.SHED_CALLS, registry)
        self._placed_calls = gauge(declared.PLACED_CALLS, registry)
        self._account_used = gauges(declared.ACCOUNT_USED, registry)
        self._account_limit = gauges(declared.ACCOUNT_LIMIT, registry)
        self._account_cooling = gauges(declared.ACCOUNT_COOLING, registry)
        self._breaker_state = gauges(declared.BREAKER_STATE, registry)
        self._breaker_forced = gauges(declared.BREAKER_FORCED, registry)
        self._breaker_changes = counter(declared.BREAKER_CHANGES, registry)
        self._retries_refused = lone_counter(declared.RETRIES_REFUSED, registry)

    def upstream_attempt_finished(self, *, target: str, model: str, outcome: str, seconds: float) -> None:
        """Note how one attempt was booked; `target` is the kind of target, never an account or a key."""
        self._upstream_attempts[target, model, outcome].inc()
        self._upstream_duration[target, model].observe(seconds)

    def upstream_first_chunk(self, *, target: str, model: str, seconds: float) -> None:
        """Note how long a streamed call waited for its first chunk."""
        self._upstream_first_chunk[target, model].observe(seconds)

    def breaker(self, *, account: str, region: str, model: str, state: int, forced: bool) -> None:
        """Set what the breaker of a target does: 0 closed, 1 half-open, 2 open; `forced` is an operator's order."""
        # An account may have no region, and an empty label would be counted under `other`.
        labels = (account, region or "none", model)
        self._breaker_state[labels].set(state)
        self._breaker_forced[labels].set(forced)
        self._breaker_changes.begin(*labels, "open")

    def breaker_changed(self, *, account: str, region: str, model: str, state: str) -> None:
        """Count a change of a breaker to `state`: closed, half_open or open."""
        target = (account, region or "none", model)
        # Of breakers that never open there is one series, and not three.
        for after in ("half_open", "closed"):
            self._breaker_changes.begin(*target, after)
        self._breaker_changes[*target, state].inc()

    def retry_refused(self) -> None:
        """Count a further attempt that the retry budget did not afford."""
        self._retries_refused.inc()

    def calls_waiting(self, *, priority: str, count: int) -> None:
        """Set how many calls of a class wait for a place."""
        self._waiting_calls[(priority,)].set(count)

    def call_waited(self, *, priority: str, seconds: float) -> None:
        """Note how long a call had to wait for its place."""
        self._call_wait[(priority,)].observe(seconds)

    def call_shed(self, *, priority: str) -> None:
        """Note a call that was refused because too many waited."""
        self._shed_calls[(priority,)].inc()

    def calls_placed(self, count: int) -> None:
        """Set how many calls have a place."""
        self._placed_calls.set(count)

    def account_use(self, *, account: str, model: str, metric: str, used: int, limit: int) -> None:
        """Set what this process used of an account's limit; `model` is `all` where the limit is over all of them."""
        self._account_used[account, model, metric].set(used)
        self._account_limit[account, model, metric].set(limit)

    def account_cooling(self, *, account: str, model: str, seconds: float) -> None:
        """Set for how long an account cools down for a model, 0 when it does not."""
        self._account_cooling[account, model].set(seconds)
