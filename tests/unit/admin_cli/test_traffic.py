"""Targets, breakers and the live view, as operators type and read them."""

import csv
import io
import json
import os
import pty
import signal
import termios

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import traffic_pb2 as pb
from tollhouse.v1 import generation_pb2

from tests.unit.admin_cli.canned import CannedServer, refusal
from tests.unit.admin_cli.conftest import Run
from tests.unit.admin_cli.test_terminal import read_all, start

ROOM = pb.HeadRoom(metric=pb.HeadRoom.METRIC_REQUESTS_PER_MINUTE, model="flash", limit=200, used=150)
SPENT = pb.HeadRoom(metric=pb.HeadRoom.METRIC_SPEND_PER_10_MINUTES, limit=10 * 10**9, used=9 * 10**9)
OPEN = pb.Breaker(
    account="accounts/east",
    region="europe-west1",
    model="flash",
    state=pb.BREAKER_STATE_OPEN,
    process_count=4,
    open_process_count=1,
    call_count=8,
    failure_count=6,
)
TARGET = pb.Target(
    tier="tiers/fast",
    weight=3,
    account="accounts/east",
    upstream_kind=generation_pb2.UPSTREAM_KIND_VERTEX,
    region="europe-west1",
    model="flash",
    breaker=OPEN,
    head_rooms=[ROOM, SPENT],
    in_flight_count=7,
)
ORDER = pb.BreakerOrder(
    account="accounts/east", model="flash", state=pb.BREAKER_STATE_OPEN, reason="an outage", etag="v1"
)


def targets(*found: pb.Target) -> pb.ListTargetsResponse:
    """A last page of targets."""
    waiting = pb.WaitingCalls(priority=generation_pb2.PRIORITY_BATCH, count=12)
    return pb.ListTargetsResponse(
        targets=found, process_count=4, waiting_calls=[waiting], read_time=Timestamp(seconds=1_795_000_000)
    )


@pytest.fixture
def view(server: CannedServer) -> CannedServer:
    """A server with one ailing target."""
    server.answers |= {
        "ListTargets": targets(TARGET),
        "ListBreakers": pb.ListBreakersResponse(breakers=[OPEN], process_count=4),
    }
    return server


# --- orders -----------------------------------------------------------------------------------------------------------


def test_an_order_says_what_where_why_and_until_when(server: CannedServer, run: Run) -> None:
    """In the words of the command line."""
    server.answers["OpenBreaker"] = ORDER

    result = run(
        *("breakers", "open", "east", "--model", "flash", "--region", "europe-west1"),
        *("--reason", "an outage", "--until", "2026-12-01T08:00Z", "--yes"),
    )

    sent = server.last.request
    assert result.code == 0, result.err
    assert (sent.account, sent.region, sent.model) == ("accounts/east", "europe-west1", "flash")
    assert (sent.reason, sent.expire_time.ToJsonString()) == ("an outage", "2026-12-01T08:00:00Z")
    assert sent.request_id
    assert "state" in result.out


def test_taking_a_target_out_of_use_needs_a_yes(server: CannedServer, run: Run) -> None:
    """Nobody is there to give it on a pipe; putting it back needs none."""
    server.answers |= {"OpenBreaker": ORDER, "CloseBreaker": ORDER, "ReleaseBreaker": Empty()}

    opened = run("breakers", "open", "east", "--reason", "an outage")
    asked = len(server.received)
    closed = run("breakers", "close", "east", "--reason", "a false alarm")
    released = run("breakers", "auto", "east")

    assert (opened.code, asked) == (2, 0)
    assert "--yes" in opened.err
    assert (closed.code, released.code) == (0, 0)
    assert [call.method for call in server.received] == ["CloseBreaker", "ReleaseBreaker"]


def test_a_dry_run_shows_what_would_be_in_force(server: CannedServer, run: Run) -> None:
    """Beside the order on exactly these breakers."""
    other = pb.BreakerOrder(account="accounts/east", reason="not this one")
    server.answers |= {
        "ListBreakerOrders": pb.ListBreakerOrdersResponse(breaker_orders=[other, ORDER]),
        "CloseBreaker": pb.BreakerOrder(
            account="accounts/east", model="flash", state=pb.BREAKER_STATE_CLOSED, reason="well again"
        ),
    }

    result = run("breakers", "close", "east", "--model", "flash", "--reason", "well again", "--dry-run")

    assert result.code == 0, result.err
    assert server.last.request.validate_only
    assert "an outage" in result.out
    assert "well again" in result.out
    assert "not this one" not in result.out


def test_an_order_without_a_reason_is_not_sent(server: CannedServer, run: Run) -> None:
    """Those who come later have a right to one."""
    result = run("breakers", "open", "east", "--yes")

    assert (result.code, server.received) == (2, [])
    assert "--reason" in result.err


def test_a_refused_order_is_told_in_one_line(server: CannedServer, run: Run) -> None:
    """With the server's own reason."""
    server.answers["ReleaseBreaker"] = refusal(
        grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", "The breaker order on accounts/east does not exist."
    )

    result = run("breakers", "auto", "east")

    assert result.code == 4
    assert result.err.startswith("error: RESOURCE_NOT_FOUND: The breaker order on accounts/east does not exist.")


def test_orders_that_hold_everything_say_so(server: CannedServer, run: Run) -> None:
    """An empty cell would look like nothing."""
    server.answers["ListBreakerOrders"] = pb.ListBreakerOrdersResponse(breaker_orders=[ORDER])

    result = run("breakers", "orders", "-o", "csv")

    (row,) = csv.DictReader(io.StringIO(result.out))
    assert (row["account"], row["region"], row["model"], row["state"]) == ("east", "all", "flash", "open")


# --- what is seen -----------------------------------------------------------------------------------------------------


def test_a_breaker_says_in_how_many_processes_it_is_open(view: CannedServer, run: Run) -> None:
    """One process alone may have had bad luck."""
    result = run("breakers", "list", "--troubled", "--account", "east", "-o", "csv")

    (row,) = csv.DictReader(io.StringIO(result.out))
    assert (row["breaker"], row["calls"], row["errors"]) == ("open in 1 of 4", "8", "75%")
    assert (view.last.request.account, view.last.request.troubled_only) == ("accounts/east", True)


def test_a_target_shows_the_scarcest_of_its_limits(view: CannedServer, run: Run) -> None:
    """The one that will be in the way first."""
    result = run("targets", "list", "--tier", "fast", "-o", "csv")

    (row,) = csv.DictReader(io.StringIO(result.out))
    assert row["head_room"] == "10% ($9.00 of $10.00 spend/10min)"
    assert (row["tier"], row["kind"], row["weight"], row["in_flight"]) == ("fast", "vertex", "3", "7")
    assert view.last.request.tier == "tiers/fast"


def test_targets_without_limits_accounts_or_calls_are_told_apart(view: CannedServer, run: Run) -> None:
    """Nothing known, nothing there and nothing left are three things."""
    cooling = pb.Target(tier="tiers/fast", account="accounts/c", cooling_end_time=Timestamp(seconds=1))
    unlimited, nobody = pb.Target(tier="tiers/fast", account="accounts/a"), pb.Target(tier="tiers/fast", rank=1)
    view.answers["ListTargets"] = targets(unlimited, nobody, cooling)

    rows = list(csv.DictReader(io.StringIO(run("targets", "list", "-o", "csv").out)))

    assert [row["head_room"] for row in rows] == ["no limits", "", "cooling down"]
    assert [row["breaker"] for row in rows] == ["unused", "", "unused"]
    assert rows[1]["account"] == "none"


def test_the_live_view_on_a_pipe_is_one_picture(view: CannedServer, run: Run) -> None:
    """A script that forgot --once does not hang."""
    result = run("upstream", "status")

    assert result.code == 0, result.err
    assert "4 processes · 7 calls in flight · waiting: 12 batch · 1 breakers in trouble" in result.out
    assert "open in 1 of 4" in result.out


def test_the_picture_as_json_has_all_of_it(view: CannedServer, run: Run) -> None:
    """Targets of all pages, what waits, and breakers in trouble."""
    first = targets(TARGET)
    first.next_page_token = "more"
    view.answers["ListTargets"] = [first, targets(TARGET)]

    picture = json.loads(run("upstream", "status", "-o", "json").out)

    assert len(picture["targets"]) == 2
    assert picture["processCount"] == 4
    assert picture["waitingCalls"] == [{"priority": "PRIORITY_BATCH", "count": "12"}]
    assert picture["troubledBreakers"][0]["state"] == "BREAKER_STATE_OPEN"


@pytest.mark.parametrize(("columns", "shown"), [(80, "west"), (200, "europe-west1")])
def test_q_ends_the_live_view(view: CannedServer, columns: int, shown: str) -> None:
    """On a terminal of any width it goes on until somebody has seen enough, and gives the terminal back as it was."""
    view.answers["ListTargets"] = targets(TARGET, pb.Target(tier="tiers/fast", account="accounts/west", model="flash"))
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, columns))
    before = termios.tcgetattr(terminal)
    watching = start(terminal, "upstream", "status", kind="xterm")
    picture = read_until(screen, b"unused")

    os.write(screen, b"q")

    assert watching.wait(20) == 0
    assert termios.tcgetattr(terminal) == before
    assert b"4 processes" in picture
    assert b"open in 1 of 4" in picture
    assert shown.encode() in picture
    os.close(terminal)
    os.close(screen)


def test_ctrl_c_ends_the_live_view(view: CannedServer) -> None:
    """As everywhere, and the terminal is given back."""
    screen, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    watching = start(terminal, "upstream", "status", kind="xterm")
    read_until(screen, b"q ends")

    watching.send_signal(signal.SIGINT)

    assert watching.wait(20) == 130
    assert termios.tcgetattr(terminal) == before
    os.close(terminal)
    os.close(screen)


def test_a_view_goes_on_with_what_it_has_while_the_server_is_away(view: CannedServer) -> None:
    """And says that it is old."""
    away = refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "The database is gone.")
    view.answers["ListTargets"] = [targets(TARGET), away, targets(TARGET)]
    screen, terminal = pty.openpty()
    watching = start(terminal, "upstream", "status", kind="xterm")

    read_until(screen, b"STORE_UNAVAILABLE")
    rest = read_until(screen, b"open in 1 of 4")

    os.write(screen, b"q")
    assert watching.wait(20) == 0
    assert b"east" in rest
    os.close(terminal)
    os.close(screen)


def test_a_terminal_that_cannot_be_redrawn_gets_one_picture(view: CannedServer) -> None:
    """Instead of an empty screen."""
    screen, terminal = pty.openpty()
    watching = start(terminal, "upstream", "status")
    os.close(terminal)

    assert "4 processes" in read_all(screen)
    assert watching.wait(20) == 0


def read_until(screen: int, text: bytes) -> bytes:
    """What was shown up to where `text` appeared; a program that ends before fails the test."""
    shown = b""
    while text not in shown:
        shown += os.read(screen, 65536)
    return shown
