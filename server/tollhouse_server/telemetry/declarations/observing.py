"""What is told of logs and traces themselves."""

from tollhouse_server.telemetry.declarations.declaration import Declaration, counter

SPANS_SENT = counter("tollhouse_spans_sent_total", "Spans that the collector of traces has taken.")
SPANS_DROPPED = counter(
    "tollhouse_spans_dropped_total",
    "Spans that nobody will see, by cause: `full` (too many waited), `refused` (by the collector) or `unreachable`.",
    "cause",
)
LOG_LINES_DROPPED = counter(
    "tollhouse_log_lines_dropped_total",
    "Lines of the log that could not be written, because nobody read them or the disk was full; 0 is expected.",
)

DECLARATIONS: tuple[Declaration, ...] = (SPANS_SENT, SPANS_DROPPED, LOG_LINES_DROPPED)
