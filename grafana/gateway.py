"""The first dashboard: is it serving, how fast, at what cost, and which part is in the way."""

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.identity import identity
from grafana.panels import lines, number
from grafana.privacy import contents, findings

RATE = "[$__rate_interval]"


def quantiles(metric: str, by: str = "") -> dict[str, str]:
    """Return queries for the median and the 99th percentile of a histogram."""
    grouped = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return {
        f"{name}{legend}": f"histogram_quantile({quantile}, sum by ({grouped}) (rate({metric}_bucket{RATE})))"
        for name, quantile in (("p50", "0.5"), ("p99", "0.99"))
    }


def dashboard() -> Dashboard:
    """Build the dashboard."""
    board = (
        Dashboard("Tollhouse: gateway")
        .uid("tollhouse-gateway")
        .description("What the gateway serves now. Who spent it is in the ledger: tollhouse report month.")
        .tags(["tollhouse"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
    )
    return _parts(identity(_audit(_verification(_ledger(_places(_upstream(_calls(_overview(board)))))))))


def _overview(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Now"))
        .with_panel(number("Calls", "RPCs finished a second.", "reqps", f"sum(rate(tollhouse_calls_total{RATE}))"))
        .with_panel(
            number(
                "Errors of ours",
                "Share of RPCs that ended in INTERNAL or UNAVAILABLE.",
                "percentunit",
                f'sum(rate(tollhouse_calls_total{{code=~"INTERNAL|UNAVAILABLE"}}{RATE}))'
                f" / sum(rate(tollhouse_calls_total{RATE}))",
            )
        )
        .with_panel(number("In flight", "RPCs being served.", "short", "sum(tollhouse_in_flight_calls)"))
        .with_panel(
            number(
                "Spend an hour",
                "Settled cost at the rate of now.",
                "currencyUSD",
                f"sum(rate(tollhouse_cost_dollars_total{RATE})) * 3600",
            )
        )
        .with_panel(
            number(
                "In suspense", "Attempts of unknown outcome: reconcile them.", "short", "tollhouse_suspense_attempts"
            )
        )
        .with_panel(
            number(
                "Settled above hold",
                "Calls that cost more than was held, in a day. Must be 0.",
                "short",
                "sum(increase(tollhouse_settled_above_hold_total[1d]))",
            )
        )
    )


def _calls(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Calls"))
        .with_panel(
            lines(
                "Calls by code",
                "RPCs a second.",
                "reqps",
                {"{{code}}": f"sum by (code) (rate(tollhouse_calls_total{RATE}))"},
            )
        )
        .with_panel(
            lines(
                "Duration",
                "From the arrival of an RPC to its last message.",
                "s",
                quantiles("tollhouse_call_duration_seconds", "rpc"),
            )
        )
        .with_panel(
            lines(
                "Refusals by reason",
                "Errors a second, by documented reason.",
                "reqps",
                {"{{reason}}": f"sum by (reason) (rate(tollhouse_refusals_total{RATE}))"},
            )
        )
        .with_panel(
            lines(
                "Tokens by kind",
                "Tokens a second; cached ones are part of prompt.",
                "short",
                {"{{kind}}": f"sum by (kind) (rate(tollhouse_tokens_total{RATE}))"},
            )
        )
        .with_panel(
            lines(
                "Tokens by model",
                "Prompt and answer tokens a second.",
                "short",
                {"{{model}}": f'sum by (model) (rate(tollhouse_tokens_total{{kind!="cached"}}{RATE}))'},
            )
        )
        .with_panel(
            lines(
                "Cost by tier",
                "Settled cost in dollars an hour.",
                "currencyUSD",
                {"{{tier}}": f"sum by (tier) (rate(tollhouse_cost_dollars_total{RATE})) * 3600"},
            )
        )
    )


def _upstream(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Upstream"))
        .with_panel(
            lines(
                "Attempts by outcome",
                "Attempts a second, by how they were booked.",
                "reqps",
                {"{{outcome}}": f"sum by (outcome) (rate(tollhouse_upstream_attempts_total{RATE}))"},
            )
        )
        .with_panel(
            lines(
                "Attempt duration",
                "One attempt, its booking included.",
                "s",
                quantiles("tollhouse_upstream_attempt_duration_seconds", "model"),
            )
        )
        .with_panel(
            lines(
                "Time to first chunk",
                "Of streamed calls.",
                "s",
                quantiles("tollhouse_upstream_first_chunk_seconds", "model"),
            )
        )
        .with_panel(
            lines(
                "Upstream keys",
                "Keys by state.",
                "short",
                {"{{state}}": "sum by (state) (tollhouse_upstream_keys)"},
                span=24,
            )
        )
        .with_panel(_custody())
        .with_panel(
            lines(
                "Breakers",
                "The worst over processes: 0 closed, 1 half-open, 2 open. tollhouse breakers list says more.",
                "short",
                {
                    "{{account}} {{region}} {{model}}": "max by (account, region, model) (tollhouse_breaker_state) > 0",
                    "held by orders": "sum(max by (account, region, model) (tollhouse_breaker_forced))",
                },
            )
        )
        .with_panel(
            lines(
                "Breaker changes",
                "An hour, in all processes, by the state that they came to.",
                "short",
                {"{{state}}": "sum by (state) (increase(tollhouse_breaker_changes_total[1h]))"},
            )
        )
        .with_panel(
            lines(
                "Retries refused",
                "A second: further attempts that would have been more than a tenth of the calls.",
                "reqps",
                {"refused": f"sum(rate(tollhouse_retries_refused_total{RATE}))"},
            )
        )
    )


def _custody() -> timeseries.Panel:
    return lines(
        "Custody of keys",
        "Rotations by step, the oldest one, those that fail, keys past their date, refusals and unusual use.",
        "short",
        {
            "rotations {{step}}": "sum by (step) (tollhouse_upstream_key_rotations)",
            "oldest {{step}}, hours": "max by (step) (tollhouse_upstream_key_rotation_age_seconds) / 3600",
            "failing": "max(tollhouse_upstream_key_rotations_failing)",
            "overdue": "max(tollhouse_upstream_keys_overdue)",
            "refusals": "sum(increase(tollhouse_upstream_key_refusals_total[1h]))",
            "unusual use": "sum(increase(tollhouse_unusual_key_use_total[1h]))",
        },
        span=24,
    )


def _places(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Places at upstream accounts"))
        .with_panel(
            lines(
                "Calls that wait",
                "Calls without a place yet, by priority; and those that have one.",
                "short",
                {
                    "{{priority}}": "sum by (priority) (tollhouse_waiting_calls)",
                    "placed": "sum(tollhouse_placed_calls)",
                },
            )
        )
        .with_panel(
            lines(
                "Wait for a place",
                "Of the calls that had to wait.",
                "s",
                quantiles("tollhouse_call_wait_seconds", "priority"),
            )
        )
        .with_panel(
            lines(
                "Calls shed",
                "A second: refused because too many waited.",
                "reqps",
                {"{{priority}}": f"sum by (priority) (rate(tollhouse_shed_calls_total{RATE}))"},
            )
        )
        .with_panel(
            lines(
                "Use of accounts' limits",
                "Part of each limit that is used in its running window.",
                "percentunit",
                {
                    "{{account}} {{model}} {{metric}}": (
                        "sum by (account, model, metric) (tollhouse_account_used_amount)"
                        " / min by (account, model, metric) (tollhouse_account_limit_amount)"
                    )
                },
                span=16,
            )
        )
        .with_panel(
            lines(
                "Accounts cooling down",
                "For how long they still get no calls after a 429.",
                "s",
                {"{{account}} {{model}}": "max by (account, model) (tollhouse_account_cooling_seconds) > 0"},
            )
        )
    )


def _ledger(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Ledger"))
        .with_panel(
            lines(
                "Transaction duration",
                "One committed ledger transaction.",
                "s",
                quantiles("tollhouse_tick_duration_seconds"),
            )
        )
        .with_panel(
            lines(
                "Works a transaction",
                "How many reservations and settlements share one commit.",
                "short",
                {**quantiles("tollhouse_tick_batch_works"), "queued": "sum(tollhouse_queued_works)"},
            )
        )
        .with_panel(
            lines(
                "Failed transactions",
                "A second, by cause; they are tried again.",
                "reqps",
                {"{{cause}}": f"sum by (cause) (rate(tollhouse_tick_failures_total{RATE}))"},
            )
        )
        .with_panel(
            lines(
                "Attempts held open",
                "Dispatched and not settled, and of unknown outcome.",
                "short",
                {"in flight": "tollhouse_in_flight_attempts", "suspense": "tollhouse_suspense_attempts"},
                span=12,
            )
        )
        .with_panel(
            lines(
                "Roll-ups",
                "Tenants with a day that is not rolled up, and values that differ from the records: must be 0. "
                "And calls booked under `other`, as their tenant's month has as many values of labels as it may.",
                "short",
                {
                    "behind": "tollhouse_rollup_behind_tenants",
                    "different": "tollhouse_rollup_differences",
                    "label values beyond the bound": "sum(rate(tollhouse_label_values_beyond_total[5m]))",
                },
                span=12,
            )
        )
        .with_panel(
            lines(
                "Usage missing",
                "Answers without a usage report, an hour.",
                "short",
                {"{{model}}": "sum by (model) (increase(tollhouse_usage_missing_total[1h]))"},
                span=12,
            )
        )
    )


def _verification(board: Dashboard) -> Dashboard:
    return board.with_panel(
        number(
            "Ledger findings",
            "Places in which the ledger did not add up at night. Must be 0: tollhouse ledger verify.",
            "short",
            "tollhouse_ledger_findings",
        )
    ).with_panel(
        number(
            "Ledger verified",
            "Time since the ledger was last verified to the end; a day, when all is well.",
            "s",
            "time() - tollhouse_ledger_verified_timestamp_seconds",
        )
    )


def _audit(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Audit"))
        .with_panel(
            lines(
                "Checkpoints of audit",
                "Age of the oldest event that none vouches for, and time since all of them were in the anchor.",
                "s",
                {
                    "oldest event without": "max(tollhouse_audit_unsigned_seconds)",
                    "anchored": "time() - max(tollhouse_audit_anchored_timestamp_seconds > 0)",
                },
                span=12,
            )
        )
        .with_panel(
            lines(
                "Audit failures and refusals",
                "Failed rounds by cause, an hour; broken is a trail that was changed. And refusals noted, a second.",
                "short",
                {
                    "{{cause}}": "sum by (cause) (increase(tollhouse_audit_failures_total[1h]))",
                    "refusals, details {{details}}": f"sum by (details) (rate(tollhouse_audit_refusals_total{RATE}))",
                },
                span=12,
            )
        )
    )


def _parts(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Parts"))
        .with_panel(
            lines(
                "Reachable",
                "1 when every process that looks reached it last time.",
                "short",
                {"{{part}}": "tollhouse_part_up"},
            )
        )
        .with_panel(
            lines(
                "Staleness",
                "Since the most stale process learned of changed keys and policies.",
                "s",
                {"staleness": "tollhouse_epoch_staleness_seconds"},
            )
        )
        .with_panel(
            lines(
                "Processes", "Living processes by role.", "short", {"{{role}}": "sum by (role) (tollhouse_processes)"}
            )
        )
        .with_panel(contents())
        .with_panel(findings())
    )
