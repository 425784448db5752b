"""Logs are one JSON object a line, and a key that gets into them is blotted out."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from tollhouse_server.telemetry.logging import configure_logging, log_call
from tollhouse_server.telemetry.redaction import REDACTED, redacted

# Put together at run time: whole, they would look like secrets to whoever scans the repository.
CANARIES = {
    "tollhouse": "th_" + "live_k1a2b3_" + "s" * 32,
    "google": "AI" + "za" + "Sy" + "C" * 33,
    "google bound": "AQ" + ".Ab8" + "R" * 30,
    "vault": "hvs" + "." + "C" * 24,
    "openbao": "s" + "." + "Q" * 24,
    "bearer": "Bearer " + "opaque-" + "z" * 12,
    "dsn": "postgresql://app:" + "p4ss" + "@127.0.0.1/db",
}


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(log_format="json", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def events(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def secret_part(canary: str) -> str:
    return canary.removeprefix("Bearer ").removeprefix("postgresql://").split("@")[0]


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES.keys())
def test_key_is_found_nowhere_in_a_log_line(output: io.StringIO, canary: str) -> None:
    """In the text, in a value, nested, in an object's repr, in an exception and from a library: all blotted out."""
    logger = structlog.get_logger("tollhouse_server.canary")

    logger.info(f"sent {canary} upstream", value=canary, nested={"list": [canary]}, error=ValueError(canary))
    try:
        raise RuntimeError(canary)
    except RuntimeError:
        logger.exception("failed")
    logging.getLogger("some.library").warning("library said %s", canary)

    assert len(events(output)) == 3
    assert secret_part(canary) not in output.getvalue()
    assert output.getvalue().count(REDACTED) >= 5


def test_value_under_a_secret_name_is_redacted_whatever_it_looks_like(output: io.StringIO) -> None:
    """A password has no shape to recognise."""
    structlog.get_logger("tollhouse_server.canary").info("login", password="correct horse", headers={"token": "x1"})

    assert events(output)[0]["password"] == REDACTED
    assert events(output)[0]["headers"] == {"token": REDACTED}


@pytest.mark.parametrize("text", ["LIMIT_EXCEEDED on tenants/acme/limits/l1", "th_ is the prefix", "gemini-2.5-pro"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Redaction that eats names makes the log useless."""
    assert redacted(text) == text


def test_call_is_one_line_with_level_by_outcome(output: io.StringIO) -> None:
    """An operator finds a call by its fields, and a defect by its level."""
    logger = structlog.get_logger("tollhouse_server.api")

    log_call(logger, rpc="X.Y", code="OK", seconds=0.12345678, scope="tenants/acme")
    log_call(logger, rpc="X.Y", code="INTERNAL", seconds=1.0)

    first, second = events(output)
    assert (first["event"], first["code"], first["seconds"], first["scope"]) == ("call", "OK", 0.123457, "tenants/acme")
    assert (first["level"], second["level"]) == ("info", "error")
