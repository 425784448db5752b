"""Logs: one JSON object a line on stderr (or plain text on a terminal), one line per call, secrets blotted out."""

import logging
import re
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
import structlog

from tollhouse_server.telemetry.lines import LineWriter
from tollhouse_server.telemetry.redaction import may_be_secret, redact_event

Format = Literal["auto", "json", "console"]

_UNWRITABLE = (OSError, ValueError, TypeError, LookupError, AttributeError)
"""What comes of a line that nobody reads any more, or of a value that is no JSON: a call must not fail for it."""
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What orjson leaves as it is in a text, and yet ends a line, steers a terminal, or turns the direction of writing."""


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
    handler = _LineHandler(None if stream else LineWriter(sys.stderr.fileno()).start(), output, console=console)
    handler.setFormatter(_formatter(console=console, shared=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name, of_logger in chosen.items():
        logging.getLogger(name).setLevel(of_logger.upper())


def write_event(
    logger: logging.Logger,
    level: int,
    event: str,
    facts: Callable[[], Mapping[str, Any]],
    *,
    ours: Collection[str] = (),
) -> None:
    """Write one line of facts, which are asked for only if somebody wants it.

    Neither a record nor structlog is made for it, and texts that were found good before are not looked through again:
    a line of a call takes 12 us instead of 25. `ours` names facts that come from nobody outside.
    """
    if logger.isEnabledFor(level):
        for handler in logging.root.handlers:
            if isinstance(handler, _LineHandler):
                told = facts()
                if may_be_secret(told, ours):
                    told = redact_event(None, "", told)
                handler.write_facts(logger.name, level, event, told)


def lines_dropped() -> int:
    """Return how many lines this process could not write."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, _LineHandler))


class _LineHandler(logging.Handler):
    """Hands lines to a writer, or writes them itself; a line that cannot be written is counted, and nobody hears."""

    def __init__(self, writer: LineWriter | None, stream: TextIO, *, console: bool) -> None:
        super().__init__()
        self._writer = writer
        self._stream = stream
        self._line_of = _console_line if console else _json_line
        self._failed = 0

    @property
    def dropped(self) -> int:
        return self._failed + (self._writer.dropped if self._writer else 0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write((self.format(record) + "\n").encode("utf-8", "replace"), record.levelno)
        except _UNWRITABLE:
            self._failed += 1

    def write_facts(self, logger_name: str, level: int, event: str, facts: Mapping[str, Any]) -> None:
        """Write a line of facts that hold no secret."""
        try:
            self._write(self._line_of(logger_name, level, event, facts), level)
        except _UNWRITABLE:
            self._failed += 1

    def _write(self, line: bytes, level: int) -> None:
        if self._writer is not None:
            self._writer.write(line, is_urgent=level >= logging.ERROR)
        else:
            self._stream.write(line.decode())


def _json_line(logger_name: str, level: int, event: str, facts: Mapping[str, Any]) -> bytes:
    line = {"timestamp": datetime.now(UTC), "level": _word(level), "logger": logger_name, "event": event, **facts}
    text = orjson.dumps(line, default=repr, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)
    if text.isascii():
        return text
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text.decode()).encode()


def _console_line(_logger_name: str, level: int, event: str, facts: Mapping[str, Any]) -> bytes:
    now, said = datetime.now(UTC), " ".join([f"{_shown(name)}={_shown(value)}" for name, value in facts.items()])
    return f"{now:%Y-%m-%dT%H:%M:%S.%fZ} [{_word(level)}] {event} {said}\n".encode("utf-8", "replace")


def _word(level: int) -> str:
    return logging.getLevelName(level).lower()


def _formatter(*, console: bool, shared: list[structlog.typing.Processor]) -> structlog.stdlib.ProcessorFormatter:
    """Return what writes structlog's events and libraries' records as structlog does."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Exceptions become text before redaction: a traceback may well quote a key.
            structlog.processors.format_exc_info,
            redact_event,
            *([_without_controls] if console else []),
            _renderer(console),
        ],
    )


def _processors() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _without_controls(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Show what would steer the terminal or begin a line of its own, instead of doing it (a structlog processor)."""
    return {
        _shown(name): "\n".join(map(_shown, value.split("\n"))) if name == "exception" else _seen(value)
        for name, value in event.items()
    }


def _seen(value: Any) -> Any:
    return _shown(value) if isinstance(value, str) else value


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _renderer(console: bool) -> structlog.typing.Processor:  # noqa: FBT001  (private, one caller)
    if console:
        return structlog.dev.ConsoleRenderer(colors=True)
    return structlog.processors.JSONRenderer()
