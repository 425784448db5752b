"""Logs: one JSON object a line on stderr (or plain text on a terminal), one line per call, secrets blotted out."""

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
import structlog

from tollhouse_server.telemetry.lines import LineWriter
from tollhouse_server.telemetry.redaction import may_hold_secret, redact_event

Format = Literal["auto", "json", "console"]

_FACTS = "tollhouse_facts"
"""The attribute of a log record that holds its facts, where it was made here."""

_EMPTY_OBJECT = len("{}")


def configure_logging(
    *,
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    log_format: Format = "auto",
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's logging, once per process, before the first line.

    `auto` means console on a terminal and JSON elsewhere. `levels` are those of single loggers and of what is below
    them, by name. Libraries' own records go the same way, from warning up. With a `stream` each line is written at
    once; without one a thread writes them to stderr, and nobody waits for it.
    """
    output = stream or sys.stderr
    console = log_format == "console" or (log_format == "auto" and output.isatty())
    chosen = {"tollhouse_server": level, **(levels or {})}
    lowest = min(logging.getLevelNamesMapping()[name.upper()] for name in chosen.values())
    shared = _processors()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _LineHandler(None if stream else LineWriter(sys.stderr.fileno()).start(), output)
    handler.setFormatter(_Formatter(console=console, shared=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name, of_logger in chosen.items():
        logging.getLogger(name).setLevel(of_logger.upper())


def write_event(logger_name: str, level: int, event: str, facts: Callable[[], Mapping[str, Any]]) -> None:
    """Write one line of facts, which are asked for only if somebody wants it; a tenth of the cost of structlog's way.

    What is told goes unread by pattern only where no secret can be in it: see `may_hold_secret`.
    """
    logger = logging.getLogger(logger_name)
    if logger.isEnabledFor(level):
        record = logging.LogRecord(logger_name, level, "", 0, event, (), None)
        setattr(record, _FACTS, facts())
        logger.handle(record)


def lines_dropped() -> int:
    """Return how many lines this process could not write."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, _LineHandler))


class _LineHandler(logging.Handler):
    """Hands lines to a writer, or writes them itself; a line that cannot be written is counted, and nobody hears."""

    def __init__(self, writer: LineWriter | None, stream: TextIO) -> None:
        super().__init__()
        self._writer = writer
        self._stream = stream
        self._failed = 0

    @property
    def dropped(self) -> int:
        return self._failed + (self._writer.dropped if self._writer else 0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            if self._writer is not None:
                self._writer.write(line.encode("utf-8", "replace"))
            else:
                self._stream.write(line)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            # A call must not fail for its log line, whatever is wrong with that: nobody reads, or a value is no JSON.
            self._failed += 1


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Writes structlog's events and libraries' records as structlog does, and facts on a short way."""

    def __init__(self, *, console: bool, shared: list[structlog.typing.Processor]) -> None:
        super().__init__(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Exceptions become text before redaction: a traceback may well quote a key.
                structlog.processors.format_exc_info,
                redact_event,
                _renderer(console),
            ],
        )
        self._is_console = console

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, _FACTS, None)
        if facts is None:
            return super().format(record)
        at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        level, event = record.levelname.lower(), record.msg
        if self._is_console:
            said = " ".join([f"{name}={value}" for name, value in redact_event(None, "", facts).items()])
            return f"{at} [{level}] {event} {said}"
        text = orjson.dumps(facts, default=repr)
        if may_hold_secret(text):
            text = orjson.dumps(redact_event(None, "", facts), default=repr)
        head = f'{{"timestamp":"{at}","level":"{level}","logger":"{record.name}","event":"{event}"'
        return f"{head},{text[1:].decode()}" if len(text) > _EMPTY_OBJECT else head + "}"


def _processors() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderer(console: bool) -> structlog.typing.Processor:  # noqa: FBT001  (private, one caller)
    if console:
        return structlog.dev.ConsoleRenderer(colors=True)
    return structlog.processors.JSONRenderer()
