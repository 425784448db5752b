"""`tollhouse departments move` at a date: when that is, what a dry run shows, what is listed and cancelled."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import departments_pb2 as pb
from tollhouse.admin.v1 import tenants_pb2

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

RESEARCH, LABS = "tenants/acme/departments/research", "tenants/acme/departments/labs"
MOVE = pb.DepartmentMove(
    name="tenants/acme/departmentMoves/m-abc",
    department=RESEARCH,
    parent_department=LABS,
    effective_time=Timestamp(seconds=1_798_756_200),
    state=pb.DepartmentMove.STATE_SCHEDULED,
    path_before=[RESEARCH],
    path_after=[LABS, RESEARCH],
    project_count=3,
    joined_limit_count=2,
)


@pytest.mark.parametrize(
    ("zone", "typed", "moment"),
    [
        ("UTC", "2027-01-01", "2027-01-01T00:00:00"),
        ("Asia/Kolkata", "2027-01-01", "2026-12-31T18:30:00"),
        ("America/New_York", "2027-01-01", "2027-01-01T05:00:00"),
        # The clock jumps from 0:00 to 1:00: the day begins at the jump.
        ("Africa/Cairo", "2027-04-30", "2027-04-29T22:00:00"),
        # The clock goes back from 1:00 to 0:00: the first of two midnights.
        ("America/Havana", "2026-11-01", "2026-11-01T04:00:00"),
        ("Asia/Kolkata", "2027-01-01T06:00+02:00", "2027-01-01T04:00:00"),
        ("Asia/Kolkata", "2027-01-01T06:00:00Z", "2027-01-01T06:00:00"),
    ],
)
def test_a_date_means_midnight_in_the_tenants_zone(
    server: CannedServer, run: Run, zone: str, typed: str, moment: str
) -> None:
    """And a moment with its offset is exact."""
    server.answers["GetTenant"] = tenants_pb2.Tenant(name="tenants/acme", time_zone=zone)
    server.answers["MoveDepartment"] = pb.Department(name=RESEARCH, move=MOVE)

    result = run("departments", "move", "research", "--to", "labs", "--effective", typed, "--tenant", "acme")

    sent = server.last.request
    assert result.code == 0
    assert (sent.name, sent.parent_department) == (RESEARCH, LABS)
    assert sent.effective_time.ToDatetime(tzinfo=UTC) == datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert "m-abc" in result.out


@pytest.mark.parametrize("typed", ["2027-01-01T06:00", "2027-13-01", "tomorrow", "0001-01-01T00:00+14:00"])
def test_a_time_that_is_not_clear_is_a_usage_error(server: CannedServer, run: Run, typed: str) -> None:
    """Nothing is sent; the advice shows both ways to write it."""
    result = run("departments", "move", "research", "--to", "labs", "--effective", typed, "--tenant", "acme")

    assert result.code == 2
    assert result.err.startswith("error: USAGE: ")
    assert server.received == []


def test_a_move_without_a_time_asks_for_none(server: CannedServer, run: Run) -> None:
    """At once; `--under` is the same as `--to`; the department is shown as it is now."""
    done = pb.DepartmentMove(state=pb.DepartmentMove.STATE_APPLIED)
    server.answers["MoveDepartment"] = pb.Department(name=RESEARCH, parent_department=LABS, move=done)

    result = run("departments", "move", "research", "--under", "labs", "--tenant", "acme", "-o", "csv")

    assert not server.last.request.HasField("effective_time")
    assert result.out.splitlines()[1].startswith(f"{RESEARCH},,{LABS},")


def test_a_dry_run_shows_paths_and_how_much_is_concerned(server: CannedServer, run: Run) -> None:
    """The server's own answer, without the change."""
    server.answers["GetDepartment"] = pb.Department(name=RESEARCH, path=[RESEARCH])
    server.answers["MoveDepartment"] = pb.Department(name=RESEARCH, path=[RESEARCH], move=MOVE)
    when = ("--effective", "2027-01-01T00:00Z")

    result = run("departments", "move", "research", "--to", "labs", *when, "--tenant", "acme", "--dry-run", "-o", "csv")

    assert server.last.request.validate_only
    rows = dict(line.split(",,", 1) for line in result.out.splitlines()[1:])
    assert rows["move.path_before"] == RESEARCH
    assert rows["move.path_after"] == f'"{LABS}, {RESEARCH}"'
    assert (rows["move.project_count"], rows["move.joined_limit_count"]) == ("3", "2")


def test_moves_are_listed_by_department_and_state(server: CannedServer, run: Run) -> None:
    """One line for each."""
    server.answers["ListDepartmentMoves"] = pb.ListDepartmentMovesResponse(department_moves=[MOVE])

    result = run("departments", "moves", "-t", "acme", "-d", "research", "--state", "scheduled", "-o", "csv")

    sent = server.last.request
    assert (sent.parent, sent.department, sent.state) == ("tenants/acme", RESEARCH, pb.DepartmentMove.STATE_SCHEDULED)
    assert result.out.splitlines()[0] == "name,department,parent_department,effective_time,state,failure,creator,kind"
    assert "m-abc" in result.out


def test_cancelling_asks_first(server: CannedServer, run: Run) -> None:
    """With --yes it is sent by the id that the list shows."""
    server.answers["CancelDepartmentMove"] = MOVE

    refused = run("departments", "cancel-move", "m-abc", "-t", "acme")
    before = len(server.received)
    done = run("departments", "cancel-move", "m-abc", "-t", "acme", "--yes", "--etag", "v1")

    assert (refused.code, before, done.code) == (2, 0, 0)
    assert (server.last.request.name, server.last.request.etag) == (MOVE.name, "v1")
