"""Security and audit: who tries to come in, what is refused, whether the trail is whole, what data policies find."""

from typing import Final

from grafana.board import Board
from grafana.panels import Question, number
from grafana.queries import increase, largest, or_zero, rate, series, total

_CREDENTIALS: Final = "Many credentials are refused"
_TRAIL: Final = "The audit trail is broken, or is not signed"
_CERTIFICATE: Final = "The certificate of the gRPC port expires"

_NOW = (
    number(
        "Are credentials refused?",
        "A second, for any fault.",
        "reqps",
        or_zero(rate("tollhouse_credentials_refused_total")),
        runbook=_CREDENTIALS,
        warn=1,
        bad=10,
    ),
    number(
        "Does somebody guess?",
        "Credentials with a wrong secret or signature, in an hour.",
        "short",
        or_zero(increase("tollhouse_credentials_refused_total", "1h", fault="wrong_secret|signature")),
        runbook=_CREDENTIALS,
        warn=10,
        bad=1000,
    ),
    number(
        "Is the trail whole?",
        "Rounds in the last day that found an audit trail changed. Must be 0.",
        "short",
        or_zero(increase("tollhouse_audit_failures_total", "1d", cause="broken")),
        runbook=_TRAIL,
        bad=1,
    ),
    number(
        "Is the trail signed?",
        "Age of the oldest audit event that no checkpoint vouches for.",
        "s",
        largest("tollhouse_audit_unsigned_seconds"),
        runbook=_TRAIL,
        warn=600,
        bad=900,
    ),
    number(
        "How long is the certificate good?",
        "Of the certificate that new connections are shown; nothing where the port has no TLS.",
        "s",
        f"min({series('tollhouse_tls_certificate_expiry_seconds')})",
        runbook=_CERTIFICATE,
        warn=1_209_600,
        bad=86_400,
    ),
    number(
        "Is content lost?",
        "Calls of the last day whose content was to be kept and was not.",
        "short",
        or_zero(increase("tollhouse_contents_total", "1d", outcome="dropped")),
        runbook="Kept content or findings are lost",
        warn=1,
        bad=100,
    ),
)

_WHO = (
    Question(
        asks="What is wrong with credentials?",
        means="Refused credentials a second, by fault; callers are not told which.",
        unit="reqps",
        queries={"{{fault}}": rate("tollhouse_credentials_refused_total", "fault")},
        runbook=_CREDENTIALS,
    ),
    Question(
        asks="What may callers not do?",
        means="Permissions denied and resources not found, a second.",
        unit="reqps",
        queries={
            "{{reason}}": rate(
                "tollhouse_refusals_total", "reason", reason="PERMISSION_DENIED|RESOURCE_NOT_FOUND|DUTIES_CONFLICT"
            )
        },
        runbook=_CREDENTIALS,
    ),
    Question(
        asks="Are certificates renewed?",
        means="New files put in force, and files that could not be used: then the old certificate goes on. An hour.",
        unit="short",
        queries={"{{outcome}}": increase("tollhouse_tls_certificate_reloads_total", "1h", "outcome")},
        runbook=_CERTIFICATE,
    ),
)

_AUDIT = (
    Question(
        asks="Is the trail signed and anchored?",
        means="Age of the oldest event without a checkpoint, and time since all checkpoints were in the anchor.",
        unit="s",
        queries={
            "oldest without": largest("tollhouse_audit_unsigned_seconds"),
            "anchored": f"time() - ({largest('tollhouse_audit_anchored_timestamp_seconds')} > 0)",
        },
        runbook=_TRAIL,
    ),
    Question(
        asks="Do rounds of audit fail?",
        means="Failed rounds an hour, by cause; `broken` is a trail that was changed past Tollhouse.",
        unit="short",
        queries={"{{cause}}": increase("tollhouse_audit_failures_total", "1h", "cause")},
        runbook=_TRAIL,
        bad=1,
    ),
    Question(
        asks="Which refusals are noted?",
        means="Refusals noted for the trail, a second, by whether their details are kept.",
        unit="reqps",
        queries={"details {{details}}": rate("tollhouse_audit_refusals_total", "details")},
        runbook=_CREDENTIALS,
    ),
)

_CONTENT = (
    Question(
        asks="What do data policies find?",
        means="Values found in prompts and answers a second, by detector and what became of them.",
        unit="reqps",
        queries={
            "{{detector}} {{direction}} {{action}}": rate("tollhouse_data_found_total", "detector, direction, action"),
            "not written down": rate("tollhouse_data_findings_lost_total"),
        },
        runbook="Kept content or findings are lost",
        width=12,
    ),
    Question(
        asks="Is content kept as it should be?",
        means="Calls a second whose content was to be kept, by outcome; and those whose content waits to be written.",
        unit="short",
        queries={
            "{{outcome}}": rate("tollhouse_contents_total", "outcome"),
            "waiting": total(series("tollhouse_content_waiting_calls")),
        },
        runbook="Kept content or findings are lost",
        width=12,
    ),
)

BOARD: Final = Board(
    uid="security",
    title="security and audit",
    means="Who tries to come in, and whether what was done can be proved. Names are in tollhouse audit search.",
    rows=(("Now", _NOW), ("Who calls", _WHO), ("Audit", _AUDIT), ("Content", _CONTENT)),
    since="now-24h",
)
