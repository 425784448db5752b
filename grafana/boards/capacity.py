"""Capacity: what runs, what it uses, and what will be short first."""

from typing import Final

from grafana.board import Board
from grafana.panels import Question, number
from grafana.queries import increase, largest, rate, series, total

_DIE: Final = "Processes die"
_STORE: Final = "PostgreSQL cannot be reached"
_SLOW: Final = "Ledger transactions fail or are slow"
_WAITS: Final = "Calls wait or are shed"

_NOW = (
    number(
        "How many workers serve?",
        "Living workers on all servers.",
        "short",
        total(series("tollhouse_processes", role="worker")),
        runbook=_DIE,
        warn=2,
        bad=1,
    ),
    number(
        "Do processes die?",
        "Started again in the last day.",
        "short",
        increase("tollhouse_process_restarts_total", "1d"),
        runbook=_DIE,
        warn=1,
        bad=10,
    ),
    number(
        "How much memory is used?",
        "Resident memory of all processes.",
        "bytes",
        total(series("tollhouse_process_resident_memory_bytes")),
        runbook=_DIE,
    ),
    number(
        "How busy are processes?",
        "Processor seconds a second: 1 is one core.",
        "short",
        rate("tollhouse_process_cpu_seconds_total"),
        runbook="Processes have too much to do",
    ),
    number(
        "Does an event loop stand still?",
        "The longest that a process was late for its own timer.",
        "s",
        largest("tollhouse_event_loop_lag_seconds"),
        runbook="Processes have too much to do",
        warn=0.05,
        bad=0.5,
    ),
    number(
        "How large is the database?",
        "Of all that Tollhouse keeps in PostgreSQL.",
        "bytes",
        largest("tollhouse_database_size_bytes"),
        runbook=_SLOW,
    ),
)

_PROCESSES = (
    Question(
        asks="What runs?",
        means="Living processes by role, and the version that they are of.",
        unit="short",
        queries={
            "{{role}}": total(series("tollhouse_processes"), "role"),
            "version {{version}}": largest("tollhouse_build_info", "version"),
        },
        runbook=_DIE,
    ),
    Question(
        asks="Which role uses the processor?",
        means="Processor seconds a second, by role.",
        unit="short",
        queries={"{{role}}": rate("tollhouse_process_cpu_seconds_total", "role")},
        runbook="Processes have too much to do",
    ),
    Question(
        asks="Does memory grow?",
        means="Resident memory by role; what only rises is a leak.",
        unit="bytes",
        queries={"{{role}}": total(series("tollhouse_process_resident_memory_bytes"), "role")},
        runbook=_DIE,
    ),
    Question(
        asks="Are loops late?",
        means="The longest that a process of a role was late for its own timer.",
        unit="s",
        queries={"{{role}}": largest("tollhouse_event_loop_lag_seconds", "role")},
        runbook="Processes have too much to do",
        warn=0.05,
        bad=0.5,
    ),
    Question(
        asks="Are files left open?",
        means="Open files and sockets, by role.",
        unit="short",
        queries={"{{role}}": total(series("tollhouse_process_open_files"), "role")},
        runbook="Processes have too much to do",
    ),
    Question(
        asks="Which processes die?",
        means="Started again in an hour, by role.",
        unit="short",
        queries={"{{role}}": increase("tollhouse_process_restarts_total", "1h", "role")},
        runbook=_DIE,
        bad=1,
    ),
)

_TOLD = (
    Question(
        asks="Are traces sent?",
        means="Spans that the collector took, a second; 0 while tracing is off.",
        unit="short",
        queries={"sent": rate("tollhouse_spans_sent_total")},
        runbook="Log lines or spans are dropped",
        width=12,
    ),
    Question(
        asks="Are lines or spans lost?",
        means="A second: spans that the collector did not take in time, and lines that nobody read; calls do not wait.",
        unit="short",
        queries={
            "spans, {{cause}}": rate("tollhouse_spans_dropped_total", "cause"),
            "lines": rate("tollhouse_log_lines_dropped_total"),
        },
        runbook="Log lines or spans are dropped",
        bad=0.01,
        width=12,
    ),
)

_STORES = (
    Question(
        asks="Are connections left?",
        means="Connections to PostgreSQL of all who use it, by state, and how many it allows.",
        unit="short",
        queries={
            "{{state}}": largest("tollhouse_database_connections", "state"),
            "allowed": largest("tollhouse_database_connections_limit"),
        },
        runbook=_STORE,
    ),
    Question(
        asks="How fast does the database grow?",
        means="Bytes a day at the rate of the last six hours.",
        unit="bytes",
        queries={"growth": f"max(deriv({series('tollhouse_database_size_bytes')}[6h])) * 86400"},
        runbook=_SLOW,
    ),
    Question(
        asks="Is room made ahead?",
        means="Days for which partitions of usage records exist already.",
        unit="d",
        queries={"days": f"min({series('tollhouse_ledger_partitions_ahead_seconds')}) / 86400"},
        runbook="Partitions run out",
        warn=21,
        bad=7,
    ),
    Question(
        asks="Are all parts reachable?",
        means="1 when every process that looks reached it last time.",
        unit="short",
        queries={"{{part}}": f"min by (part) ({series('tollhouse_part_up')})"},
        runbook=_STORE,
    ),
    Question(
        asks="Are changes heard?",
        means="Time since the most stale process learned of changed keys, grants and limits.",
        unit="s",
        queries={"staleness": largest("tollhouse_epoch_staleness_seconds")},
        runbook=_STORE,
        warn=2,
        bad=5,
    ),
    Question(
        asks="Are figures of the database new?",
        means="Time since a housekeeper last read money, partitions and connections from PostgreSQL, within a day.",
        unit="s",
        # After a minute what is old is not served any more.
        queries={"read": f"time() - max(max_over_time({series('tollhouse_readings_timestamp_seconds')}[1d]))"},
        runbook="Figures stand still",
        warn=60,
        bad=300,
    ),
    Question(
        asks="Does work pile up?",
        means="Reservations and settlements that wait for a transaction, and calls that wait for a place upstream.",
        unit="short",
        queries={
            "ledger": total(series("tollhouse_queued_works")),
            "upstream": total(series("tollhouse_waiting_calls")),
        },
        runbook=_WAITS,
    ),
)

BOARD: Final = Board(
    uid="capacity",
    title="capacity",
    means="What runs, what it uses, and what will be short first.",
    rows=(("Now", _NOW), ("Processes", _PROCESSES), ("Stores", _STORES), ("What is told", _TOLD)),
    since="now-24h",
)
