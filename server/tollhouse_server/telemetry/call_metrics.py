"""What is reported of calls."""

from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge

from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.telemetry.declarations import calls as declared
from tollhouse_server.telemetry.exemplars import Exemplars
from tollhouse_server.telemetry.families import counter, gauge, gauges, histogram, histograms


class TokenCount(Protocol):
    """Tokens of one kind, all modalities."""

    @property
    def total(self) -> int: ...


class ReportedUsage(Protocol):
    """What an answer used; `pricing.Usage` is one."""

    @property
    def prompt(self) -> TokenCount: ...
    @property
    def cached(self) -> TokenCount: ...
    @property
    def tool_use(self) -> TokenCount: ...
    @property
    def candidates(self) -> TokenCount: ...
    @property
    def thoughts_tokens(self) -> int: ...
    @property
    def images(self) -> int: ...
    @property
    def grounding_queries(self) -> int: ...


def tokens_by_kind(usage: ReportedUsage) -> dict[str, int]:
    """Return how many tokens of each kind were used, if any were; `cached` ones are part of `prompt`."""
    counts = {
        "prompt": usage.prompt.total,
        "cached": usage.cached.total,
        "tool_use": usage.tool_use.total,
        "candidates": usage.candidates.total,
        "thoughts": usage.thoughts_tokens,
    }
    return {kind: count for kind, count in counts.items() if count}


class CallMetrics:
    """What is reported of calls; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.exemplars = Exemplars()
        self._calls = counter(declared.CALLS, registry)
        self._call_duration = histograms(declared.CALL_DURATION, registry)
        self._in_flight_calls = gauges(declared.IN_FLIGHT_CALLS, registry)
        self._refusals = counter(declared.REFUSALS, registry)
        self._credentials_refused = counter(declared.CREDENTIALS_REFUSED, registry)
        # Built when there is one: a process that shows no certificate would say 0, and that it has expired.
        self._certificate_expiry: Gauge | None = None
        self._registry = registry
        self._certificate_reloads = counter(declared.CERTIFICATE_RELOADS, registry)
        self._tokens = counter(declared.TOKENS, registry)
        self._images = counter(declared.IMAGES, registry)
        self._grounding_queries = counter(declared.GROUNDING_QUERIES, registry)
        self._cost = counter(declared.COST, registry)
        self._usage_missing = counter(declared.USAGE_MISSING, registry)
        self._settled_above_hold = counter(declared.SETTLED_ABOVE_HOLD, registry)
        self._added_latency = histogram(declared.ADDED_LATENCY, registry)

    def call_started(self, *, rpc: str) -> None:
        """Note that an RPC arrived; `call_finished` must follow."""
        self._in_flight_calls[(rpc,)].inc()

    def call_finished(self, *, rpc: str, code: str, seconds: float, trace_id: str = "") -> None:
        """Note that an RPC ended: `rpc` as `GenerationService.GenerateContent`, `code` the gRPC code's name.

        `trace_id` is that of a call whose spans are exported: it may become the example of calls that took as long.
        """
        self._in_flight_calls[(rpc,)].dec()
        self._calls[rpc, code].inc()
        self._call_duration[(rpc,)].observe(seconds)
        if trace_id:
            self.exemplars.note(declared.CALL_DURATION, (rpc,), seconds, trace_id)

    def latency_added(self, *, seconds: float) -> None:
        """Note the time that a call which reached upstream spent here."""
        self._added_latency.observe(seconds)

    def call_refused(self, *, reason: str) -> None:
        """Note the documented reason (`LIMIT_EXCEEDED`) of an RPC that ended in an error."""
        self._refusals[(reason,)].inc()

    def credential_refused(self, *, fault: str) -> None:
        """Note what was wrong with a credential (`expired`)."""
        self._credentials_refused[(fault,)].inc()

    def certificate_seen(self, *, expires_in_seconds: float) -> None:
        """Note for how long the certificate of new connections is valid."""
        if self._certificate_expiry is None:
            self._certificate_expiry = gauge(declared.CERTIFICATE_EXPIRY, self._registry)
        self._certificate_expiry.set(expires_in_seconds)

    def certificate_reloaded(self, *, outcome: str) -> None:
        """Note that new files were put in force (`loaded`), or could not be (`refused`)."""
        self._certificate_reloads[(outcome,)].inc()

    def call_settled(self, *, tier: str, model: str, usage: ReportedUsage | None, cost_nanos: int) -> None:
        """Note what a served call used and cost; `usage` None means that the answer reported none."""
        # A sum of floats drifts, by far less than a cent; the ledger has the exact integers.
        self._cost[tier, model].inc(cost_nanos / NANOS_PER_DOLLAR)
        if usage is None:
            self._usage_missing[tier, model].inc()
            return
        for kind, tokens in tokens_by_kind(usage).items():
            self._tokens[tier, model, kind].inc(tokens)
        if usage.images:
            self._images[tier, model].inc(usage.images)
        if usage.grounding_queries:
            self._grounding_queries[tier, model].inc(usage.grounding_queries)

    def settled_above_hold(self, *, model: str) -> None:
        """Note a call that cost more than was held: the worst case was not the worst."""
        self._settled_above_hold[(model,)].inc()
