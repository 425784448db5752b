"""What the rooms report to: one small typed method per thing that happens. No tenant, caller or key gets in here."""

from typing import Protocol

from prometheus_client import CollectorRegistry

from tollhouse_server.money import NANOS_PER_DOLLAR
from tollhouse_server.telemetry import declarations as declared
from tollhouse_server.telemetry.content_metrics import ContentMetrics
from tollhouse_server.telemetry.families import Family, counter, gauge, histogram, lone_counter


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


class Metrics:
    """The metrics of one process, on the registry it is given; safe from any thread, microseconds a call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = counter(declared.CALLS, registry)
        self._call_duration = Family(histogram(declared.CALL_DURATION, registry))
        self._in_flight_calls = Family(gauge(declared.IN_FLIGHT_CALLS, registry))
        self._refusals = counter(declared.REFUSALS, registry)
        self._credentials_refused = counter(declared.CREDENTIALS_REFUSED, registry)
        self._certificate_expiry = gauge(declared.CERTIFICATE_EXPIRY, registry)
        self._certificate_reloads = counter(declared.CERTIFICATE_RELOADS, registry)
        self._tokens = counter(declared.TOKENS, registry)
        self._images = counter(declared.IMAGES, registry)
        self._grounding_queries = counter(declared.GROUNDING_QUERIES, registry)
        self._cost = counter(declared.COST, registry)
        self._usage_missing = counter(declared.USAGE_MISSING, registry)
        self.contents = ContentMetrics(registry)
        self._data_found = counter(declared.DATA_FOUND, registry)
        self._label_values_beyond = lone_counter(declared.LABEL_VALUES_BEYOND, registry)
        self._data_findings_lost = lone_counter(declared.DATA_FINDINGS_LOST, registry)
        self._settled_above_hold = counter(declared.SETTLED_ABOVE_HOLD, registry)
        self._upstream_attempts = counter(declared.UPSTREAM_ATTEMPTS, registry)
        self._upstream_duration = Family(histogram(declared.UPSTREAM_DURATION, registry))
        self._upstream_first_chunk = Family(histogram(declared.UPSTREAM_FIRST_CHUNK, registry))
        self._tick_duration = histogram(declared.TICK_DURATION, registry)
        self._tick_batch = histogram(declared.TICK_BATCH, registry)
        self._tick_failures = counter(declared.TICK_FAILURES, registry)
        self._queued_works = gauge(declared.QUEUED_WORKS, registry)
        self._in_flight_attempts = gauge(declared.IN_FLIGHT_ATTEMPTS, registry)
        self._suspense_attempts = gauge(declared.SUSPENSE_ATTEMPTS, registry)
        self._tenants_behind = gauge(declared.TENANTS_BEHIND, registry)
        self._rollup_differences = gauge(declared.ROLLUP_DIFFERENCES, registry)
        self._ledger_findings = gauge(declared.LEDGER_FINDINGS, registry)
        self._ledger_verified = gauge(declared.LEDGER_VERIFIED, registry)
        self._build_keys(registry)
        self._waiting_calls = Family(gauge(declared.WAITING_CALLS, registry))
        self._call_wait = Family(histogram(declared.CALL_WAIT, registry))
        self._shed_calls = counter(declared.SHED_CALLS, registry)
        self._placed_calls = gauge(declared.PLACED_CALLS, registry)
        self._account_used = Family(gauge(declared.ACCOUNT_USED, registry))
        self._account_limit = Family(gauge(declared.ACCOUNT_LIMIT, registry))
        self._account_cooling = Family(gauge(declared.ACCOUNT_COOLING, registry))
        audit = (declared.AUDIT_FAILURES, declared.AUDIT_REFUSALS)
        self._audit_failures, self._audit_refusals = (counter(one, registry) for one in audit)
        signed = (declared.AUDIT_UNSIGNED, declared.AUDIT_ANCHORED)
        self._audit_unsigned, self._audit_anchored = (gauge(one, registry) for one in signed)
        self._part_up = Family(gauge(declared.PART_UP, registry))
        self._epoch_staleness = gauge(declared.EPOCH_STALENESS, registry)
        self._processes = Family(gauge(declared.PROCESSES, registry))

    def _build_keys(self, registry: CollectorRegistry) -> None:
        """Build what is told of upstream keys and breakers."""
        self._upstream_keys = Family(gauge(declared.UPSTREAM_KEYS, registry))
        self._upstream_key_age = Family(gauge(declared.UPSTREAM_KEY_AGE, registry))
        self._breaker_state = Family(gauge(declared.BREAKER_STATE, registry))
        self._breaker_forced = Family(gauge(declared.BREAKER_FORCED, registry))
        self._breaker_changes = counter(declared.BREAKER_CHANGES, registry)
        self._retries_refused = lone_counter(declared.RETRIES_REFUSED, registry)
        self._key_refusals = counter(declared.KEY_REFUSALS, registry)
        self._key_rotations = Family(gauge(declared.KEY_ROTATIONS, registry))
        self._key_rotation_age = Family(gauge(declared.KEY_ROTATION_AGE, registry))
        self._key_rotations_failing = gauge(declared.KEY_ROTATIONS_FAILING, registry)
        self._keys_overdue = gauge(declared.KEYS_OVERDUE, registry)
        self._unusual_key_use = counter(declared.UNUSUAL_KEY_USE, registry)

    # --- calls ---

    def call_started(self, *, rpc: str) -> None:
        """Note that an RPC arrived; `call_finished` must follow."""
        self._in_flight_calls[(rpc,)].inc()

    def call_finished(self, *, rpc: str, code: str, seconds: float) -> None:
        """Note that an RPC ended: `rpc` as `GenerationService.GenerateContent`, `code` the gRPC code's name."""
        self._in_flight_calls[(rpc,)].dec()
        self._calls[rpc, code].inc()
        self._call_duration[(rpc,)].observe(seconds)

    def call_refused(self, *, reason: str) -> None:
        """Note the documented reason (`LIMIT_EXCEEDED`) of an RPC that ended in an error."""
        self._refusals[(reason,)].inc()

    def credential_refused(self, *, fault: str) -> None:
        """Note what was wrong with a credential (`expired`)."""
        self._credentials_refused[(fault,)].inc()

    def certificate_seen(self, *, expires_in_seconds: float) -> None:
        """Note for how long the certificate of new connections is valid."""
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
        counts = {
            "prompt": usage.prompt.total,
            "cached": usage.cached.total,
            "tool_use": usage.tool_use.total,
            "candidates": usage.candidates.total,
            "thoughts": usage.thoughts_tokens,
        }
        for kind, tokens in counts.items():
            if tokens:
                self._tokens[tier, model, kind].inc(tokens)
        if usage.images:
            self._images[tier, model].inc(usage.images)
        if usage.grounding_queries:
            self._grounding_queries[tier, model].inc(usage.grounding_queries)

    def data_found(self, *, detector: str, direction: str, action: str, count: int) -> None:
        """Count values that a data policy found in a call; `detector` is a built-in one, or CUSTOM."""
        self._data_found[detector, direction, action].inc(count)

    def data_finding_lost(self) -> None:
        """Count a finding that is written down nowhere."""
        self._data_findings_lost.inc()

    def label_values_beyond(self) -> None:
        """Note a call that was booked with the value `other` instead of its own."""
        self._label_values_beyond.inc()

    def settled_above_hold(self, *, model: str) -> None:
        """Note a call that cost more than was held: the worst case was not the worst."""
        self._settled_above_hold[(model,)].inc()

    # --- upstream ---

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

    def breaker_changed(self, *, account: str, region: str, model: str, state: str) -> None:
        """Count a change of a breaker to `state`: closed, half_open or open."""
        self._breaker_changes[account, region or "none", model, state].inc()

    def retry_refused(self) -> None:
        """Count a further attempt that the retry budget did not afford."""
        self._retries_refused.inc()

    def key_refused(self, *, account: str) -> None:
        """Note that a key of the account was taken out of use because the upstream refused it."""
        self._key_refusals[(account,)].inc()

    def key_rotations(self, *, step: str, count: int, oldest_seconds: float) -> None:
        """Set how many rotations are at a step, and how long the oldest of them has been."""
        self._key_rotations[(step,)].set(count)
        self._key_rotation_age[(step,)].set(oldest_seconds)

    def key_rotation_troubles(self, *, failing: int, overdue: int) -> None:
        """Set how many rotations fail at their step, and how many keys are too old for their policy."""
        self._key_rotations_failing.set(failing)
        self._keys_overdue.set(overdue)

    def unusual_key_use(self, *, account: str, metric: str) -> None:
        """Note an hour in which a key of the account was used far more than usual; `metric` is calls or cost."""
        self._unusual_key_use[account, metric].inc()

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

    # --- ledger ---

    def tick_finished(self, *, seconds: float, works: int) -> None:
        """Note one committed ledger transaction."""
        self._tick_duration.observe(seconds)
        self._tick_batch.observe(works)

    def tick_failed(self, *, cause: str) -> None:
        """Note one failed ledger transaction; a `cause` that is a sentence is counted under `other`."""
        self._tick_failures[(cause,)].inc()

    def queued_works(self, count: int) -> None:
        """Set how many works wait for this process's next tick."""
        self._queued_works.set(count)

    def ledger_attempts(self, *, in_flight: int, suspense: int) -> None:
        """Set what the ledger holds open; only the housekeeper reports it."""
        self._in_flight_attempts.set(in_flight)
        self._suspense_attempts.set(suspense)

    def tenants_behind(self, count: int) -> None:
        """Set how many tenants have days that still have to be rolled up."""
        self._tenants_behind.set(count)

    def rollup_differences(self, count: int) -> None:
        """Set in how many values rolled-up days differ from the records."""
        self._rollup_differences.set(count)

    def ledger_verified(self, *, findings: int, at_seconds: float) -> None:
        """Set what the last nightly verification found, and when (since 1970); only the housekeeper reports it."""
        self._ledger_findings.set(findings)
        self._ledger_verified.set(at_seconds)

    # --- audit ---

    def audit_unsigned(self, *, oldest_seconds: float) -> None:
        """Set how old the oldest event is that no checkpoint vouches for; only the housekeeper reports it."""
        self._audit_unsigned.set(oldest_seconds)

    def audit_anchored(self, *, at_seconds: float) -> None:
        """Set when all checkpoints were in the anchor (since 1970); only the housekeeper reports it."""
        self._audit_anchored.set(at_seconds)

    def audit_failed(self, *, cause: str) -> None:
        """Note a round of checkpoints, anchor or retention that failed, or a broken trail."""
        self._audit_failures[(cause,)].inc()

    def audit_refusals(self, *, count: int, details: str) -> None:
        """Note refusals on their way to the trail, with details `kept` or `dropped`."""
        self._audit_refusals[(details,)].inc(count)

    # --- parts and processes ---

    def upstream_keys(self, *, state: str, count: int) -> None:
        """Set how many upstream keys are in `state`."""
        self._upstream_keys[(state,)].set(count)

    def upstream_key_age(self, *, state: str, seconds: float) -> None:
        """Set the age of the oldest upstream key in `state`."""
        self._upstream_key_age[(state,)].set(seconds)

    def vault_seen(self, *, up: bool) -> None:
        """Set whether this process's last look into Vault succeeded."""
        self._part_up[("vault",)].set(up)

    def database_seen(self, *, up: bool) -> None:
        """Set whether this process's last look into PostgreSQL succeeded."""
        self._part_up[("database",)].set(up)

    def epoch_staleness(self, seconds: float) -> None:
        """Set how long ago this process last learned of changed keys and policies."""
        self._epoch_staleness.set(seconds)

    def process_started(self, *, role: str) -> None:
        """Say that this process lives; `role` is worker or housekeeper."""
        self._processes[(role,)].set(1)
