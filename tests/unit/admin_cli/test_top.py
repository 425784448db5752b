"""`tollhouse top`: rates from two looks, a picture for any terminal, and a view that outlives its server."""

import json
import os
import pty
import re
import termios

import grpc
import pytest
from rich.console import Console
from tollhouse.admin.v1 import access_pb2
from tollhouse.admin.v1 import operations_pb2 as pb
from tollhouse_admin.rates import RateMeter, quantile, rates_between
from tollhouse_admin.status_picture import Picture, picture, shares

from tests.unit.admin_cli.canned import CannedServer, refusal
from tests.unit.admin_cli.conftest import Run
from tests.unit.admin_cli.statuses import BOUNDS, budget, counters, platform
from tests.unit.admin_cli.test_terminal import start
from tests.unit.admin_cli.test_traffic import read_until

SESSION = pb.Session(principal="tenants/acme/principals/ann", tenant="tenants/acme")


def drawn(shown: Picture, *, width: int, height: int = 24) -> list[str]:
    """The lines of a picture on a terminal of this size."""
    console = Console(width=width, height=height, highlight=False)
    with console.capture() as capture:
        console.print(picture(shown, width=width, height=height))
    return [line.rstrip() for line in capture.get().splitlines()]


def access(*scopes: str) -> access_pb2.ListAccessResponse:
    """An answer that lets the status of these scopes be seen."""
    return access_pb2.ListAccessResponse(
        access=[access_pb2.ScopeAccess(scope=one, permissions=["status.get"]) for one in scopes]
    )


@pytest.fixture
def watched(server: CannedServer) -> CannedServer:
    """A server whose platform counts ten calls a second, a tenth of them refused."""
    looks = iter(range(1000))

    def status(_: pb.GetStatusRequest) -> pb.Status:
        seconds = 2 * next(looks)
        return platform(seconds=seconds, ok=9 * seconds, errors=seconds)

    server.answers |= {"GetSession": SESSION, "ListAccess": access("platform"), "GetStatus": status}
    return server


@pytest.mark.parametrize("width", [5, 20, 40, 80, 140, 300])
@pytest.mark.parametrize("height", [1, 24, 200])
def test_no_name_steers_the_terminal_or_breaks_the_picture(width: int, height: int) -> None:
    """Names of models, accounts, departments and servers, and what is wrong, all come from elsewhere."""
    odd = "m\x1b[31m\u202egpj\n\x07\x9b\u2028" + "x" * 50
    status = platform(ok=90, errors=5)
    status.scope = status.counters.server_id = status.counters.version = odd
    status.counters.processes.add(role=odd, count=3)
    status.counters.reasons.add(reason=odd, count=9)
    status.counters.read_time.seconds += 10
    status.troubled_breakers.add(account=f"accounts/{odd}", model=odd, region=odd)
    status.departments.add(department=f"tenants/a/departments/{odd}")
    status.accounts.add(account=f"accounts/{odd}", model=odd)
    rates = rates_between(counters(seconds=0, ok=0, server=odd), status.counters)

    lines = drawn(Picture(status=status, rates=rates, trouble=odd), width=width, height=height)

    assert [line for line in lines if not line.isprintable() or len(line) > width] == []


# --- rates ------------------------------------------------------------------------------------------------------------


def test_rates_are_what_happened_between_two_looks() -> None:
    """Whatever was counted before the first one."""
    rates = rates_between(counters(seconds=0, ok=1000, errors=7), counters(seconds=10, ok=1100, errors=27))

    assert (rates.calls_per_second, rates.errors_per_second, rates.tokens_per_second) == (12, 2, 100)
    assert rates.refusals_per_second == [("LIMIT_EXCEEDED", 2.0)]
    assert [one.rpc for one in rates.rpcs] == ["GenerationService.GenerateContent"]


@pytest.mark.parametrize(
    ("part", "counts", "expected"),
    [(0.5, [10, 0, 0], 0.05), (0.5, [0, 10, 0], 0.55), (0.99, [0, 0, 10], 1.0), (0.5, [0, 0, 0], None)],
)
def test_a_quantile_lies_within_its_bucket(part: float, counts: list[int], expected: float | None) -> None:
    """Spread evenly over it; beyond the last bound nothing is known, and of no calls nothing at all."""
    found = quantile(part, counts, BOUNDS)

    assert found == (expected if expected is None else pytest.approx(expected))


def test_servers_behind_one_name_are_told_apart() -> None:
    """Another server's counters, or those of one that began anew, make no negative rates."""
    meter = RateMeter()
    meter.show(counters(seconds=0, ok=1000))
    meter.show(counters(seconds=1, ok=10, server="two/9"))
    before = meter.rates

    meter.show(counters(seconds=2, ok=1020))

    assert before is None
    assert meter.rates is not None
    assert meter.rates.calls_per_second == 10


def test_counters_that_were_read_before_change_nothing() -> None:
    """The server may answer twice with what it read once."""
    meter = RateMeter()
    for seconds, ok in ((0, 0), (2, 20), (2, 20)):
        meter.show(counters(seconds=seconds, ok=ok))

    assert meter.rates is not None
    assert meter.rates.calls_per_second == 10


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 6)])
def test_a_picture_fits_its_terminal(width: int, height: int) -> None:
    """However many budgets there are, and whatever is in trouble."""
    rates = rates_between(counters(seconds=0, ok=0), counters(seconds=1, ok=100, errors=3))

    lines = drawn(Picture(status=platform(budgets=50), rates=rates, trouble="gone"), width=width, height=height)

    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_a_small_terminal_shows_of_everything_what_matters_most() -> None:
    """Breakers in trouble, calls, budgets, accounts that are in use: in 80 x 24."""
    rates = rates_between(counters(seconds=0, ok=0), counters(seconds=1, ok=100, errors=3))

    lines = drawn(Picture(status=platform(budgets=50), rates=rates), width=80)

    text = "\n".join(lines)
    for part in ("east flash", "Generation.GenerateContent", "acme/d0 monthly", "97%", "west flash", "for 12 s"):
        assert part in text
    assert "errors 3/s (3%)" in text
    assert "suspense 2, the oldest for 2 h" in text
    assert "LIMIT_EXCEEDED 3/s" in text


@pytest.mark.parametrize(("width", "shown"), [(38, {"BUDGET", "USED"}), (60, {"BUDGET", "USED", "SPENT"})])
def test_a_narrow_terminal_leaves_columns_out_rather_than_names(width: int, shown: set[str]) -> None:
    """The last ones go first, and a budget that is not quite full is not shown as full."""
    status = pb.Status(scope="tenants/acme", budgets=[budget("tenants/acme/departments/d", used_ratio=0.9996)])

    lines = drawn(Picture(status=status, rates=None), width=width)

    [header, row] = [line for line in lines if line.startswith(("BUDGET", "acme/d monthly"))]
    assert shown <= set(header.split())
    assert "RESETS" not in header
    assert "99%" in row


def test_names_of_wide_characters_and_control_characters_stay_in_their_column() -> None:
    """What a name contains neither steers the terminal nor pushes the numbers out of it."""
    status = pb.Status(scope="tenants/acme", budgets=[budget("tenants/漢字漢字\x1b[2J/departments/字", used_ratio=1.0)])

    lines = drawn(Picture(status=status, rates=None), width=60)

    assert "\x1b" not in "".join(lines)
    assert any("100%" in line for line in lines)


def test_rows_are_given_out_in_turn() -> None:
    """Each table has one before any has two, the first ones before the last where there is room for few."""
    assert shares([10, 10, 1], 14) == [4, 3, 1]
    assert shares([10, 10, 1], 6) == [1, 1, 0]
    assert shares([2, 0, 1], 100) == [2, 0, 1]


# --- the command ------------------------------------------------------------------------------------------------------


def test_once_waits_for_rates_and_ends(run: Run, watched: CannedServer) -> None:
    """One picture, of one interval."""
    result = run("top", "--once", "--interval", "1")

    assert result.code == 0, result.err
    assert "calls    10.0/s · errors 1/s (10%)" in result.out.replace("calls    10/s", "calls    10.0/s")
    assert "\x1b" not in result.out


def test_json_is_one_line_per_look(run: Run, watched: CannedServer) -> None:
    """With the status as the server says it, and rates."""
    result = run("top", "--once", "--interval", "1", "-o", "json")

    [line] = result.out.splitlines()
    found = json.loads(line)
    assert found["status"]["scope"] == "platform"
    assert found["rates"]["callsPerSecond"] == 10


@pytest.mark.parametrize(
    ("scopes", "parent"),
    [
        (("platform", "tenants/acme"), ""),
        (("tenants/acme/departments/a", "tenants/acme"), "tenants/acme"),
        (("tenants/acme/departments/a",), "tenants/acme/departments/a"),
    ],
)
def test_without_a_scope_the_widest_is_shown(
    run: Run, server: CannedServer, scopes: tuple[str, ...], parent: str
) -> None:
    """Of those that the key may see."""
    server.answers |= {"GetSession": SESSION, "ListAccess": access(*scopes), "GetStatus": pb.Status(scope=parent)}

    assert run("top", "--once", "--interval", "1").code == 0

    assert server.last.request.parent == parent


def test_who_may_see_nothing_is_told_what_is_missing(run: Run, server: CannedServer) -> None:
    """In the server's words."""
    denied = refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "status.get is missing.")
    server.answers |= {"GetSession": SESSION, "ListAccess": access(), "GetStatus": denied}

    result = run("top", "--once")

    assert result.code == 3
    assert "status.get is missing" in result.err


def test_a_list_is_refused(run: Run, watched: CannedServer) -> None:
    """A status has no rows."""
    assert run("top", "-o", "csv").code == 2


def test_the_view_is_sorted_resized_and_left_by_keys(watched: CannedServer) -> None:
    """And gives the terminal back as it was."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    before = termios.tcgetattr(terminal)
    watching = start(terminal, "top", "--interval", "1", kind="xterm")
    read_until(screen, b"q ends")

    termios.tcsetwinsize(terminal, (10, 40))
    narrow = read_until(read_until_count(screen, b"platform"), b"q ends")
    os.write(screen, b"l")
    os.write(screen, b"q")

    assert watching.wait(20) == 0
    assert termios.tcgetattr(terminal) == before
    assert narrow
    os.close(terminal)
    os.close(screen)


def read_until_count(screen: int, text: bytes) -> int:
    """Read up to where `text` is shown again, and return the screen to go on with."""
    read_until(screen, text)
    return screen


def test_the_view_outlives_its_server(server: CannedServer) -> None:
    """It keeps what it saw, says that it reconnects, and goes on when the server is back."""
    away = refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "The database is gone.")
    seen = [platform(seconds=0), away, platform(seconds=4, ok=140), *([platform(seconds=6, ok=160)] * 50)]
    server.answers |= {"GetSession": SESSION, "ListAccess": access("platform"), "GetStatus": seen}
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 100))
    watching = start(terminal, "top", "--interval", "1", kind="xterm")

    read_until(screen, b"reconnecting: The database is gone.")
    back = read_until(screen, b"/s")
    os.write(screen, b"q")

    assert watching.wait(20) == 0
    assert b"platform" in back
    os.close(terminal)
    os.close(screen)


def test_without_colour_nothing_is_coloured(watched: CannedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where NO_COLOR is set."""
    monkeypatch.setenv("NO_COLOR", "1")
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 100))
    watching = start(terminal, "top", "--interval", "1", kind="xterm-256color")

    shown = read_until(screen, b"q ends")
    os.write(screen, b"q")

    assert watching.wait(20) == 0
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", shown)
    os.close(terminal)
    os.close(screen)
