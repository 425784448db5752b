"""Logs are one JSON object a line, and a key that gets into them is blotted out."""

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tollhouse_server.telemetry.lines import LineWriter
from tollhouse_server.telemetry.logging import configure_logging, lines_dropped
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.observing import Observer
from tollhouse_server.telemetry.redaction import REDACTED, may_hold_secret, redacted
from tollhouse_server.telemetry.vitals import Vitals

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
    with restored_logging():
        configure_logging(log_format="json", stream=stream)
        yield stream


@contextmanager
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("tollhouse_server.calls").setLevel(logging.NOTSET)
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


STEERING = "gem\n2026-01-01 [error] forged\x1b[31m\x1b]0;title\x07\r\u202egnorw\u2066\x9b31m\x00\x7f\u2028\u2029\x85"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_names_that_steer_a_terminal_or_forge_a_line_do_neither(log_format: Any) -> None:
    """A model's name, an error's text and a library's words come from outside, and are shown as what they are."""
    stream = io.StringIO()
    with restored_logging():
        configure_logging(log_format=log_format, stream=stream)
        notes = Observer().begin("X.Y", {})
        notes.facts |= {"asked": STEERING, STEERING: [STEERING]}
        notes.finish("OK")
        structlog.get_logger("tollhouse_server.x").warning(STEERING, model=STEERING, nested=[STEERING])
        logging.getLogger("some.library").warning("said %s", STEERING)

    # What colours the console's own words is not from outside.
    said = re.sub(r"\x1b\[\d*m", "", stream.getvalue()) if log_format == "console" else stream.getvalue()
    assert len(said.splitlines()) == 3
    assert {char for char in said if not char.isprintable()} == {"\n"}
    assert log_format == "console" or events(stream)[0]["asked"] == STEERING


def test_slow_reader_of_a_pipe_that_does_not_block_gets_every_line() -> None:
    """Whoever shares our stderr may have made it so; no line is dropped or torn for it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = LineWriter(writer).start()
    for number in range(3000):
        lines.write(b'{"number": %d, "padding": "%s"}\n' % (number, b"x" * 100))

    read = b""
    while read.count(b"\n") + lines.dropped < 3000:
        read += os.read(reader, 4096)

    assert [json.loads(line)["number"] for line in read.splitlines()] == list(range(3000))
    assert lines.dropped == 0


def test_line_after_one_that_was_cut_off_stands_by_itself(tmp_path: Path) -> None:
    """A disk that is full in the middle of a line, and has room again later."""
    code = (
        "import os, resource, sys\n"
        "from tollhouse_server.telemetry.lines import LineWriter\n"
        "lines = LineWriter(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)).start()\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "for limit in (1000, 1000, soft):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))\n"
        "    for number in range(30):\n"
        '        lines.write(b\'{"number": %d, "padding": "xxxxxxxxxxxxxxxxxxxxxxx"}\\n\' % (10 + number))\n'
        "    lines.flush()\n"
        "print(lines.dropped)\n"
    )
    dropped = int(
        subprocess.run([sys.executable, "-c", code, tmp_path / "log"], capture_output=True, check=True).stdout
    )

    lines = (tmp_path / "log").read_bytes().splitlines()

    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    assert len(lines) - len(whole) == 1
    assert len([line for line in whole if b"padding" in line]) + dropped == 90


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
    observer = Observer()

    for code in ("OK", "INTERNAL"):
        notes = observer.begin("X.Y", {})
        notes.facts["tenant"] = "acme"
        notes.finish(code)

    first, second = events(output)
    assert (first["event"], first["rpc"], first["code"], first["tenant"]) == ("call", "X.Y", "OK", "acme")
    assert (first["level"], second["level"]) == ("info", "error")


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES.keys())
def test_key_in_a_fact_of_a_call_is_blotted_out(output: io.StringIO, canary: str) -> None:
    """The short way of calls' lines looks for secrets too, in values and in what is nested in them."""
    notes = Observer().begin("X.Y", {"x-correlation-id": canary})
    notes.facts.update(reason=canary, finish_reasons=(f"was {canary}",))

    notes.finish("OK")

    assert secret_part(canary) not in output.getvalue()
    assert output.getvalue().count(REDACTED) == 2


@given(st.text(max_size=20), st.sampled_from(sorted(CANARIES.values())), st.text(max_size=20))
def test_what_redaction_finds_has_a_mark(before: str, canary: str, after: str) -> None:
    """A line without a mark is not looked through: the marks must be in all that redaction knows."""
    text = before + canary + after

    assert redacted(text) == text or may_hold_secret(text.encode())


def test_level_of_one_logger_leaves_the_others() -> None:
    """Whoever wants no line of a call that went well still hears of defects, and of everything else."""
    output = io.StringIO()
    with restored_logging():
        configure_logging(levels={"tollhouse_server.calls": "warning"}, log_format="json", stream=output)
        for code in ("OK", "INTERNAL"):
            Observer().begin("X.Y", {}).finish(code)
        structlog.get_logger("tollhouse_server.other").info("seen")

    assert [event.get("code", event["event"]) for event in events(output)] == ["INTERNAL", "seen"]


def test_line_that_cannot_be_written_is_counted_and_breaks_nothing() -> None:
    """A closed pipe or a full disk is no reason for a call to fail."""
    with restored_logging():
        closed = io.StringIO()
        configure_logging(log_format="json", stream=closed)
        closed.close()
        Observer().begin("X.Y", {}).finish("OK")

        assert lines_dropped() == 1


async def test_lines_that_a_housekeeper_could_not_write_are_counted_too() -> None:
    """Every process has a log, and each tells of its own."""
    registry = CollectorRegistry()
    with restored_logging():
        closed = io.StringIO()
        configure_logging(log_format="json", stream=closed)
        closed.close()
        Observer().begin("X.Y", {}).finish("OK")
        running = asyncio.create_task(Vitals(Metrics(registry), "housekeeper", beat_seconds=0.01).run())
        async with asyncio.timeout(5):
            while registry.get_sample_value("tollhouse_log_lines_dropped_total") != 1:  # noqa: ASYNC110 - a beat tells it
                await asyncio.sleep(0.01)
        running.cancel()


def test_reader_who_does_not_read_delays_nobody() -> None:
    """Lines wait, then are dropped and counted; those that wait are written as soon as somebody reads again."""
    reading, writing = os.pipe()
    writer = LineWriter(writing).start()

    for _ in range(25_000):
        writer.write(b"x" * 99 + b"\n")
    with os.fdopen(reading, "rb") as pipe:
        dropped = writer.dropped
        written = b"".join(pipe.read(100) for _ in range(25_000 - dropped))
    os.close(writing)

    assert 0 < dropped < 10_000
    assert len(written) == (25_000 - dropped) * 100


def test_urgent_line_goes_out_at_once_with_those_before_it() -> None:
    """Lines linger so that many go out together; a defect is told now, and so is what an ending process still has."""
    reading, writing = os.pipe()
    writer = LineWriter(writing, linger_seconds=600).start()

    writer.write(b"call\n")
    writer.write(b"defect\n", is_urgent=True)
    told = os.read(reading, 100)
    writer.write(b"last\n")
    is_all_written = writer.flush()

    assert told == b"call\ndefect\n"
    assert is_all_written
    assert os.read(reading, 100) == b"last\n"
    for descriptor in (reading, writing):
        os.close(descriptor)
