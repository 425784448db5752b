"""Upstream health: which target answers how fast, which is cut off, and which account has room."""

from typing import Final

from grafana.board import Board
from grafana.panels import Look, Question, number
from grafana.queries import increase, largest, median_and_tail, or_zero, quantile, rate, series, total

_BREAKS: Final = "Upstream refuses or breaks"
_WAITS: Final = "Calls wait or are shed"
_TARGET: Final = "account, region, model"
_SERVED: Final = "SERVED|CUT_OFF"
"""How attempts end that a target has served: also those that a budget of ours cut off."""

_NOW = (
    number(
        "Do attempts succeed?",
        "Share of upstream attempts that were served.",
        "percentunit",
        f"{rate('tollhouse_upstream_attempts_total', outcome=_SERVED)} / {rate('tollhouse_upstream_attempts_total')}",
        runbook=_BREAKS,
        warn=0.99,
        bad=0.95,
    ),
    number(
        "Is a target cut off?",
        "Targets whose breaker is open in some process.",
        "short",
        or_zero(f"count(max by ({_TARGET}) ({series('tollhouse_breaker_state')}) == 2)"),
        runbook=_BREAKS,
        warn=1,
        bad=3,
    ),
    number(
        "Does an order hold a breaker?",
        "Targets that an operator holds open or closed; give them back with `tollhouse breakers auto`.",
        "short",
        total(f"max by ({_TARGET}) ({series('tollhouse_breaker_forced')})"),
        runbook=_BREAKS,
        warn=1,
    ),
    number(
        "How soon does a stream begin?",
        "99th percentile of the time from sending a streamed call upstream to its first chunk.",
        "s",
        quantile("tollhouse_upstream_first_chunk_seconds", "0.99"),
        runbook=_BREAKS,
    ),
    number(
        "How many tokens come a second?",
        "Tokens that Gemini reported, cached ones not counted twice.",
        "short",
        rate("tollhouse_tokens_total", kind_not="cached"),
        runbook=_BREAKS,
    ),
    number(
        "Is an account told to wait?",
        "For how long the account that was last told 429 still gets no calls.",
        "s",
        largest("tollhouse_account_cooling_seconds"),
        runbook=_WAITS,
        warn=1,
        bad=60,
    ),
)

_TARGETS = (
    Question(
        asks="How do attempts end?",
        means="Attempts a second, by how they were booked.",
        unit="reqps",
        queries={"{{outcome}}": rate("tollhouse_upstream_attempts_total", "outcome")},
        runbook=_BREAKS,
    ),
    Question(
        asks="Which models fail?",
        means="Share of a model's attempts that were not served.",
        unit="percentunit",
        queries={
            "{{target}} {{model}}": (
                f"{rate('tollhouse_upstream_attempts_total', 'target, model', outcome_not=_SERVED)}"
                f" / {rate('tollhouse_upstream_attempts_total', 'target, model')}"
            )
        },
        runbook=_BREAKS,
        warn=0.01,
        bad=0.05,
    ),
    Question(
        asks="How long does an attempt take?",
        means="One attempt, its booking included.",
        unit="s",
        queries=median_and_tail("tollhouse_upstream_attempt_duration_seconds", "model"),
        runbook=_BREAKS,
    ),
    Question(
        asks="How soon do streams begin?",
        means="From sending a streamed call upstream to its first chunk.",
        unit="s",
        queries=median_and_tail("tollhouse_upstream_first_chunk_seconds", "model"),
        runbook=_BREAKS,
    ),
    Question(
        asks="How many tokens does each model make?",
        means="Tokens of answers and thoughts a second.",
        unit="short",
        queries={"{{model}}": rate("tollhouse_tokens_total", "model", kind="candidates|thoughts")},
        runbook=_BREAKS,
    ),
    Question(
        asks="Do answers lack their usage?",
        means="Answers without a usage report, an hour; they are in suspense at their ceiling. Must be 0.",
        unit="short",
        queries={"{{model}}": increase("tollhouse_usage_missing_total", "1h", "model")},
        runbook="Answers without usage",
        bad=1,
    ),
)

_BREAKERS = (
    Question(
        asks="Which breakers are not closed?",
        means="The worst over processes: 1 half-open, 2 open. `tollhouse breakers list` says why.",
        unit="short",
        queries={"{{account}} {{region}} {{model}}": f"{largest('tollhouse_breaker_state', _TARGET)} > 0"},
        runbook=_BREAKS,
    ),
    Question(
        asks="How often do breakers change?",
        means="Changes an hour in all processes, by the state that they came to.",
        unit="short",
        queries={"{{state}}": increase("tollhouse_breaker_changes_total", "1h", "state")},
        runbook=_BREAKS,
    ),
    Question(
        asks="Are retries held back?",
        means="A second: further attempts that would have been more than a tenth of the calls.",
        unit="reqps",
        queries={"refused": rate("tollhouse_retries_refused_total")},
        runbook=_BREAKS,
    ),
)

_ACCOUNTS = (
    Question(
        asks="Which accounts have room?",
        means="Part of each limit at Google that is used in its running window.",
        unit="percentunit",
        queries={
            "{{account}} {{model}} {{metric}}": (
                f"topk(20, sum by (account, model, metric) ({series('tollhouse_account_used_amount')})"
                f" / min by (account, model, metric) ({series('tollhouse_account_limit_amount')}))"
            )
        },
        runbook=_WAITS,
        look=Look.BARS,
        warn=0.8,
        bad=0.95,
        width=12,
    ),
    Question(
        asks="Which accounts were told to wait?",
        means="For how long an account still gets no calls for a model after a 429.",
        unit="s",
        queries={"{{account}} {{model}}": f"{largest('tollhouse_account_cooling_seconds', 'account, model')} > 0"},
        runbook=_WAITS,
        width=12,
    ),
    Question(
        asks="Who waits for a place?",
        means="Calls without a place upstream yet, by priority; and those that have one.",
        unit="short",
        queries={
            "{{priority}}": total(series("tollhouse_waiting_calls"), "priority"),
            "placed": total(series("tollhouse_placed_calls")),
        },
        runbook=_WAITS,
    ),
    Question(
        asks="How long do they wait?",
        means="Of the calls that had to wait.",
        unit="s",
        queries=median_and_tail("tollhouse_call_wait_seconds", "priority"),
        runbook=_WAITS,
    ),
    Question(
        asks="Who is turned away?",
        means="Calls a second that were refused because too many waited, the least important first.",
        unit="reqps",
        queries={"{{priority}}": rate("tollhouse_shed_calls_total", "priority")},
        runbook=_WAITS,
    ),
)

BOARD: Final = Board(
    uid="upstream",
    title="upstream health",
    means="Which targets answer, how fast, and which accounts have room. Live: tollhouse upstream status.",
    rows=(("Now", _NOW), ("Targets", _TARGETS), ("Breakers", _BREAKERS), ("Accounts", _ACCOUNTS)),
    since="now-1h",
)
