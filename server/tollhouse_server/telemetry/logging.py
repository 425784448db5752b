"""Logs: one JSON object a line on stderr (or plain text on a terminal), one line per call, secrets blotted out."""

import logging
import sys
from typing import Any, Literal, TextIO

import structlog

from tollhouse_server.telemetry.redaction import redact_event

Format = Literal["auto", "json", "console"]


def configure_logging(*, level: str = "info", log_format: Format = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging, once per process, before the first line.

    `auto` means console on a terminal and JSON elsewhere. Libraries' own records go the same way, from warning up.
    """
    output = stream or sys.stderr
    console = log_format == "console" or (log_format == "auto" and output.isatty())
    shared = _processors()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Exceptions become text before redaction: a traceback may well quote a key.
                structlog.processors.format_exc_info,
                redact_event,
                _renderer(console),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tollhouse_server").setLevel(level.upper())


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


def log_call(
    logger: structlog.typing.FilteringBoundLogger,
    *,
    rpc: str,
    code: str,
    seconds: float,
    **facts: Any,
) -> None:
    """Write the one line of a finished call: at error for INTERNAL, else at info. `facts` are names and counts."""
    write = logger.error if code in {"INTERNAL", "UNKNOWN", "DATA_LOSS"} else logger.info
    write("call", rpc=rpc, code=code, seconds=round(seconds, 6), **facts)
