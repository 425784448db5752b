"""What is reported of upstream keys."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.declarations import keys as declared
from tollhouse_server.telemetry.families import counter, gauge, gauges


class KeyMetrics:
    """What is reported of upstream keys; part of `Metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._upstream_keys = gauges(declared.UPSTREAM_KEYS, registry)
        self._upstream_key_age = gauges(declared.UPSTREAM_KEY_AGE, registry)
        self._key_refusals = counter(declared.KEY_REFUSALS, registry)
        self._key_promotions = counter(declared.KEY_PROMOTIONS, registry)
        self._key_rotations = gauges(declared.KEY_ROTATIONS, registry)
        self._key_rotation_age = gauges(declared.KEY_ROTATION_AGE, registry)
        self._key_rotations_failing = gauge(declared.KEY_ROTATIONS_FAILING, registry)
        self._keys_overdue = gauge(declared.KEYS_OVERDUE, registry)
        self._unusual_key_use = counter(declared.UNUSUAL_KEY_USE, registry)

    def key_refused(self, *, account: str) -> None:
        """Note that a key of the account was taken out of use because the upstream refused it."""
        self._key_refusals[(account,)].inc()

    def key_promoted(self, *, account: str) -> None:
        """Note that a rotation has put a new key of the account in use."""
        self._key_promotions[(account,)].inc()

    def key_promotions_begin(self, *, account: str) -> None:
        """Show 0 promotions of the account's keys until there is one."""
        self._key_promotions.begin(account)

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

    def upstream_keys(self, *, state: str, count: int) -> None:
        """Set how many upstream keys are in `state`."""
        self._upstream_keys[(state,)].set(count)

    def upstream_key_age(self, *, state: str, seconds: float) -> None:
        """Set the age of the oldest upstream key in `state`."""
        self._upstream_key_age[(state,)].set(seconds)
