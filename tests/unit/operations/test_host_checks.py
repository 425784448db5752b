"""What is seen of the host itself: certificates, settings, clocks, what the metrics port says."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.samples import Sample
from tollhouse_server.operations.checks import books, clocks, host
from tollhouse_server.operations.checks.scrape import Scrape
from tollhouse_server.operations.checks.terms import Outcome
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.declarations import Declaration


@dataclass(frozen=True, slots=True)
class Said:
    """A metrics port that says this, by metric."""

    values: dict[str, list[tuple[dict[str, str], float]]]

    async def samples(self, declaration: Declaration) -> list[Sample]:
        """The samples of a metric."""
        return [Sample(declaration.name, labels, value) for labels, value in self.values.get(declaration.name, [])]

    async def value(self, declaration: Declaration) -> float | None:
        """The value of a metric without labels."""
        found = await self.samples(declaration)
        return found[0].value if found else None


@dataclass(frozen=True, slots=True)
class Place:
    """As much of what checks look at as these look at."""

    settings: Settings
    scrape: Any = None


def certificate(file: Path, *, ends_in: timedelta, begins_in: timedelta = timedelta(days=-60)) -> Path:
    """Write a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "host")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins_in)
        .not_valid_after(now + ends_in)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize(
    ("days", "outcome"), [(90, Outcome.OK), (3, Outcome.WARNING), (-1, Outcome.FAILURE), (None, Outcome.SKIPPED)]
)
async def test_a_certificate_is_judged_by_its_end(tmp_path: Path, days: int | None, outcome: Outcome) -> None:
    """Two weeks before it somebody is warned, with what to write."""
    file = None if days is None else certificate(tmp_path / "cert.pem", ends_in=timedelta(days=days))
    settings = Settings(tls_certificate_file=file, tls_private_key_file=file)

    found = await host.certificate(Place(settings))  # type: ignore[arg-type]

    assert found.outcome is outcome
    assert bool(found.advice) == (outcome in {Outcome.WARNING, Outcome.FAILURE})


async def test_a_certificate_that_is_not_valid_yet_is_told(tmp_path: Path) -> None:
    """The new one of tomorrow, or a clock that is behind: no client takes it."""
    file = certificate(tmp_path / "cert.pem", ends_in=timedelta(days=90), begins_in=timedelta(hours=1))
    settings = Settings(tls_certificate_file=file, tls_private_key_file=file)

    found = await host.certificate(Place(settings))  # type: ignore[arg-type]

    assert found.outcome is Outcome.FAILURE
    assert "timedatectl" in found.advice


@pytest.mark.parametrize("date", ["now", "Mon, 99 Nov 2026 99:99:99 GMT", "Thu, 22 Nov 2001 01:00:00 -0000", ""])
async def test_upstream_that_says_an_odd_time_breaks_no_check(date: str) -> None:
    """What stands in a header is for whoever answers to say."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = await clocks.google(Place(Settings(gemini_base_url=url)))  # type: ignore[arg-type]

    assert found.outcome is (Outcome.FAILURE if "-0000" in date else Outcome.SKIPPED)


@pytest.mark.parametrize("page", ["<html>no</html>", 'a{b="c"', 'a{x=","x="} 1 2\n', "{"])
async def test_something_else_on_the_metrics_port_is_told(page: str) -> None:
    """No check breaks on it."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(page)}\r\n\r\n{page}".encode())
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        scrape = Scrape("127.0.0.1", server.sockets[0].getsockname()[1])
        found = await host.metrics_port(Place(Settings(), scrape))  # type: ignore[arg-type]

    assert found.outcome is Outcome.FAILURE
    assert found.advice


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"bind_address": "0.0.0.0", "audit_anchor_dir": "/anchor"}, "without TLS"),
        ({"bind_address": "0.0.0.0", "simulator_url": "http://x"}, "simulator"),
        ({"suspense_policy": "void"}, "void"),
        ({"log_level": "debug"}, "logged"),
    ],
)
async def test_settings_of_a_laptop_are_odd_where_there_is_a_network(changes: dict[str, Any], words: str) -> None:
    """On the loopback address they are what a laptop should have."""
    found = await host.settings(Place(Settings(**changes)))  # type: ignore[arg-type]

    assert found.outcome is (Outcome.WARNING if words else Outcome.OK)
    assert words in found.seen


@pytest.mark.parametrize(("workers", "outcome"), [(2, Outcome.OK), (1, Outcome.FAILURE)])
async def test_processes_are_counted(workers: int, outcome: Outcome) -> None:
    """Against how many there should be."""
    living = [({"role": "worker"}, float(workers)), ({"role": "housekeeper"}, 1.0)]
    place = Place(Settings(workers=2), Said({"tollhouse_processes": living}))

    found = await host.processes(place)  # type: ignore[arg-type]

    assert found.outcome is outcome
    assert f"{workers} of 2 workers" in found.seen


@pytest.mark.parametrize(("apart", "outcome"), [(0.2, Outcome.OK), (2.0, Outcome.WARNING), (9.0, Outcome.FAILURE)])
def test_clocks_are_judged_by_how_far_they_are_apart(apart: float, outcome: Outcome) -> None:
    """Budgets end and keys expire by them."""
    assert clocks._judged(apart, "clocks", slack_seconds=0.0).outcome is outcome


@pytest.mark.parametrize(
    ("findings", "hours_ago", "outcome"),
    [(0, 1, Outcome.OK), (0, 72, Outcome.WARNING), (3, 1, Outcome.FAILURE), (0, None, Outcome.SKIPPED)],
)
async def test_the_last_verification_counts(findings: int, hours_ago: int | None, outcome: Outcome) -> None:
    """One that found something fails whenever it was."""
    at = 0.0 if hours_ago is None else (datetime.now(UTC) - timedelta(hours=hours_ago)).timestamp()
    said: dict[str, list[tuple[dict[str, str], float]]] = {
        "tollhouse_ledger_verified_timestamp_seconds": [({}, at)],
        "tollhouse_ledger_findings": [({}, float(findings))],
    }

    found = await books.verification(Place(Settings(), Said(said)))  # type: ignore[arg-type]

    assert found.outcome is outcome


@pytest.mark.parametrize(("age", "outcome"), [(0.0, Outcome.OK), (60.0, Outcome.OK), (3600.0, Outcome.FAILURE)])
async def test_unsigned_audit_events_are_told_by_their_age(age: float, outcome: Outcome) -> None:
    """A few checkpoints late is late."""
    place = Place(Settings(), Said({"tollhouse_audit_unsigned_seconds": [({}, age)]}))

    assert (await books.checkpoints(place)).outcome is outcome  # type: ignore[arg-type]
