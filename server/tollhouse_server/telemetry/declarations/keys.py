"""What is told of upstream keys: their states, ages, rotations and use."""

from tollhouse_server.telemetry.declarations.declaration import Declaration, counter, gauge

UPSTREAM_KEYS = gauge("tollhouse_upstream_keys", "Upstream keys by state.", "livemax", "state")
UPSTREAM_KEY_AGE = gauge(
    "tollhouse_upstream_key_age_seconds", "Age of the oldest upstream key, by state.", "livemax", "state"
)
KEY_REFUSALS = counter(
    "tollhouse_upstream_key_refusals_total",
    "Upstream keys that a process took out of use because the upstream refused them (401, 403, API_KEY_INVALID).",
    "account",
)
KEY_ROTATIONS = gauge(
    "tollhouse_upstream_key_rotations",
    "Rotations and revocations of upstream keys under way, by the step that they are at.",
    "livemostrecent",
    "step",
)
KEY_ROTATION_AGE = gauge(
    "tollhouse_upstream_key_rotation_age_seconds",
    "Time since the oldest rotation at a step came to it; at STAGE with provider MANUAL a person has to bring a key.",
    "livemostrecent",
    "step",
)
KEY_ROTATIONS_FAILING = gauge(
    "tollhouse_upstream_key_rotations_failing",
    "Rotations and revocations under way whose last try of a step failed; 0 is expected.",
    "livemostrecent",
)
KEYS_OVERDUE = gauge(
    "tollhouse_upstream_keys_overdue",
    "Active upstream keys that are older than their account's policy allows.",
    "livemostrecent",
)
UNUSUAL_KEY_USE = counter(
    "tollhouse_unusual_key_use_total",
    "Hours in which an upstream key was used far more than in its past, by what was counted.",
    "account",
    "metric",
)

KEY_PROMOTIONS = counter(
    "tollhouse_upstream_key_promotions_total", "Upstream keys that rotations have put in use.", "account"
)

DECLARATIONS: tuple[Declaration, ...] = (
    UPSTREAM_KEYS,
    UPSTREAM_KEY_AGE,
    KEY_REFUSALS,
    KEY_ROTATIONS,
    KEY_ROTATION_AGE,
    KEY_ROTATIONS_FAILING,
    KEYS_OVERDUE,
    UNUSUAL_KEY_USE,
    KEY_PROMOTIONS,
)
