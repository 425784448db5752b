"""Keys and Vault: how old upstream keys are, what their rotation does, and whether Vault answers."""

from typing import Final

from grafana.board import Board
from grafana.panels import Look, Question, number
from grafana.queries import increase, largest, or_zero, rate, series

_ROTATION: Final = "An upstream key is too old, or its rotation does not go on"
_VAULT: Final = "No key for a model, or Vault is gone"

_NOW = (
    number(
        "Does Vault answer?",
        "1 when every process reached it when it looked last. Without it calls go on with the keys in memory.",
        "bool_yes_no",
        f"min({series('tollhouse_part_up', part='vault')})",
        runbook=_VAULT,
        warn=1,
        bad=0.5,
    ),
    number(
        "How many keys can be used?",
        "Upstream keys that the processes hold in memory.",
        "short",
        largest("tollhouse_upstream_keys", state="held"),
        runbook=_VAULT,
        warn=1,
        bad=0.5,
    ),
    number(
        "Is a key unreadable?",
        "Upstream keys whose material Vault did not give. Must be 0.",
        "short",
        or_zero(largest("tollhouse_upstream_keys", state="unreadable")),
        runbook=_VAULT,
        bad=1,
    ),
    number(
        "Are keys too old?",
        "Active keys that are older than their account's policy allows.",
        "short",
        largest("tollhouse_upstream_keys_overdue"),
        runbook=_ROTATION,
        warn=1,
        bad=5,
    ),
    number(
        "Do rotations fail?",
        "Rotations and revocations under way whose last try failed.",
        "short",
        largest("tollhouse_upstream_key_rotations_failing"),
        runbook=_ROTATION,
        warn=1,
        bad=3,
    ),
    number(
        "Is a key used unusually?",
        "Hours of the last day in which a key was used far more than in its past.",
        "short",
        or_zero(increase("tollhouse_unusual_key_use_total", "1d")),
        runbook="An upstream key is used far more than usual",
        bad=1,
    ),
)

_KEYS = (
    Question(
        asks="In which state are keys?",
        means="Upstream keys by state.",
        unit="short",
        queries={"{{state}}": largest("tollhouse_upstream_keys", "state")},
        runbook=_VAULT,
        width=12,
    ),
    Question(
        asks="How old are keys?",
        means="Age of the oldest upstream key, by state.",
        unit="s",
        queries={"{{state}}": largest("tollhouse_upstream_key_age_seconds", "state")},
        runbook=_ROTATION,
        look=Look.BARS,
        width=12,
    ),
    Question(
        asks="Where are rotations?",
        means="Rotations and revocations under way, by the step that they are at.",
        unit="short",
        queries={"{{step}}": largest("tollhouse_upstream_key_rotations", "step")},
        runbook=_ROTATION,
    ),
    Question(
        asks="How long are they there?",
        means="Time since the oldest rotation at a step came to it; at STAGE a person may have to bring a key.",
        unit="s",
        queries={"{{step}}": largest("tollhouse_upstream_key_rotation_age_seconds", "step")},
        runbook=_ROTATION,
    ),
    Question(
        asks="Which accounts changed keys?",
        means="Keys promoted in a day, by account.",
        unit="short",
        queries={"{{account}}": increase("tollhouse_upstream_key_promotions_total", "1d", "account")},
        runbook=_ROTATION,
    ),
    Question(
        asks="Does Google refuse keys?",
        means="Keys that a process took out of use because the upstream refused them, an hour, by account.",
        unit="short",
        queries={"{{account}}": increase("tollhouse_upstream_key_refusals_total", "1h", "account")},
        runbook="An upstream key is refused",
        bad=1,
    ),
    Question(
        asks="Who uses a key unusually?",
        means="Hours in which a key was used far more than in its past, in a day, by what was counted.",
        unit="short",
        queries={"{{account}} {{metric}}": increase("tollhouse_unusual_key_use_total", "1d", "account, metric")},
        runbook="An upstream key is used far more than usual",
        bad=1,
    ),
    Question(
        asks="Does Vault answer?",
        means="1 when every process reached it when it looked last.",
        unit="short",
        queries={"{{part}}": f"min by (part) ({series('tollhouse_part_up', part='vault')})"},
        runbook=_VAULT,
    ),
    Question(
        asks="Do callers lack a key?",
        means="Calls a second that were refused because no account had a usable key.",
        unit="reqps",
        queries={"{{reason}}": rate("tollhouse_refusals_total", "reason", reason="NO_UPSTREAM_KEY")},
        runbook=_VAULT,
    ),
)

BOARD: Final = Board(
    uid="keys",
    title="keys and Vault",
    means="Whether upstream keys are there, young enough and used as usual. tollhouse upstream-keys status says more.",
    rows=(("Now", _NOW), ("Keys", _KEYS)),
    since="now-24h",
)
