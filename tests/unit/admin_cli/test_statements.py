"""`tollhouse report export|period|close`: a file that has its name once it is whole, and what a dry run says."""

from pathlib import Path

import grpc
import pytest
from tollhouse.admin.v1 import chargeback_pb2 as pb

from tests.unit.admin_cli.canned import CannedServer, refusal
from tests.unit.admin_cli.conftest import Run

FIRST = pb.DocumentPiece(content=b"one", media_type="text/csv", file_name="../statement.csv")
EXPORT = ("report", "export", "--tenant", "acme")


def test_a_document_is_written_here_under_the_last_part_of_the_servers_name(server: CannedServer, run: Run) -> None:
    """Where files are is not the server's to say."""
    server.answers["ExportStatement"] = [FIRST, pb.DocumentPiece(content=b"two")]

    result = run(*EXPORT)

    assert (result.code, result.err.strip()) == (0, "statement.csv: 6 bytes")
    assert Path("statement.csv").read_bytes() == b"onetwo"


def test_an_export_that_breaks_off_leaves_no_file(server: CannedServer, run: Run, home: Path) -> None:
    """Half of a statement must not be taken for one, and the next export must not find its name taken."""
    server.answers["ExportStatement"] = [FIRST, refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "Gone.")]
    before = sorted(home.iterdir())

    result = run(*EXPORT)

    assert result.code == 7
    assert sorted(home.iterdir()) == before


def test_a_file_that_is_there_is_not_overwritten(server: CannedServer, run: Run, home: Path) -> None:
    """It may be what was forwarded already."""
    server.answers["ExportStatement"] = [FIRST]
    (home / "statement.csv").write_bytes(b"mine")

    result = run(*EXPORT)

    assert result.code == 2
    assert (home / "statement.csv").read_bytes() == b"mine"


@pytest.mark.parametrize("command", [EXPORT, (*EXPORT, "--records")])
def test_standard_output_gets_the_document_alone(server: CannedServer, run: Run, command: tuple[str, ...]) -> None:
    """It can be piped on."""
    server.answers |= {"ExportStatement": [FIRST], "ExportStatementRecords": [FIRST]}

    result = run(*command, "--file", "-")

    assert (result.out, result.err) == ("one", "")


OBSTRUCTED = pb.Period(
    name="tenants/acme/periods/2026-11",
    obstacles=[
        pb.PeriodObstacle(kind=pb.PeriodObstacle.KIND_SUSPENSE, description="3 attempts are in suspense", count=3)
    ],
)
SEALS = [pb.StatementSeal(scope="tenants/acme", sha256="c0ffee")]


def test_a_dry_run_of_a_close_that_would_be_refused_fails_as_it(server: CannedServer, run: Run) -> None:
    """A script that asks first must hear the same."""
    server.answers["ClosePeriod"] = pb.ClosePeriodResponse(period=OBSTRUCTED, seals=SEALS)

    result = run("report", "close", "2026-11", "--tenant", "acme", "--dry-run")

    assert result.code == 5
    assert result.err.startswith("error: PERIOD_OBSTRUCTED: dry run: tenants/acme/periods/2026-11 would not be closed")
    assert server.last.request.validate_only


def test_a_dry_run_of_a_close_says_that_it_would_be_accepted(server: CannedServer, run: Run) -> None:
    """With the digests that its statements would have."""
    server.answers["ClosePeriod"] = pb.ClosePeriodResponse(period=pb.Period(name=OBSTRUCTED.name), seals=SEALS)

    result = run("report", "close", "2026-11", "--tenant", "acme", "--dry-run")

    accepted = "dry run: close tenants/acme/periods/2026-11 would be accepted; nothing was changed\n"
    assert (result.code, result.err) == (0, accepted)
    assert "c0ffee" in result.out


def test_what_stands_against_a_close_is_listed_once(server: CannedServer, run: Run) -> None:
    """Below the month that it stands against."""
    server.answers["GetPeriod"] = OBSTRUCTED

    result = run("report", "period", "2026-11", "--tenant", "acme")

    assert (result.code, result.err) == (0, "")
    assert result.out.count("3 attempts are in suspense") == 1
