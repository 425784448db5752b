"""`tollhouse top`: how it is going, now."""

import json
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions
from rich.live import Live
from tollhouse.admin.v1 import access_pb2, access_pb2_grpc
from tollhouse.admin.v1 import operations_pb2 as pb
from tollhouse.admin.v1.operations_pb2_grpc import OperationsServiceStub

from tollhouse_admin.command import READ, Session, command, single
from tollhouse_admin.failures import ExitCode, Failure, wrong_usage
from tollhouse_admin.keyboard import keyboard
from tollhouse_admin.names import named
from tollhouse_admin.output import Format, write_drawn
from tollhouse_admin.rates import RateMeter
from tollhouse_admin.rendering import as_json
from tollhouse_admin.status_picture import SORTS, Picture, as_line, picture

app = single("How it is going, now.")

_PLATFORM = "platform"
_STATUS = "status.get"
_UNLIMITED_HEIGHT = 1000
_PIPED_WIDTH = 120
_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class Watch:
    """Asks for one status after the other; what it saw last stays while the server does not answer."""

    session: Session
    scope: str
    meter: RateMeter = field(default_factory=RateMeter)
    status: pb.Status | None = None
    trouble: str = ""

    def look(self) -> None:
        """Ask once.

        Raises:
            Failure: the server refuses, or it has not answered yet and does not now.
        """
        stub = self.session.connection.stub(OperationsServiceStub)
        parent = "" if self.scope == _PLATFORM else self.scope
        try:
            self.status = self.session.connection.call(stub.GetStatus, pb.GetStatusRequest(parent=parent))
            self.trouble = ""
        except Failure as error:
            if error.exit_code is not ExitCode.UNAVAILABLE or self.status is None:
                raise
            self.trouble = error.message
        if not self.trouble and self.status.HasField("counters"):
            self.meter.show(self.status.counters)

    def picture(self, sort: str, *, is_live: bool = False) -> Picture:
        """Return what was seen last."""
        if self.status is None:
            raise AssertionError("nothing was looked at yet")
        return Picture(status=self.status, rates=self.meter.rates, trouble=self.trouble, sort=sort, is_live=is_live)


@command(app, None, READ)
def top(
    session: Session,
    *,
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            metavar="NAME",
            callback=named,
            help="`platform`, or a tenant, department or project by its resource name. "
            "Absent: the widest that the key may see.",
        ),
    ] = None,
    interval: Annotated[float, typer.Option(min=1.0, max=3600.0, metavar="SECONDS", help="Time between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One picture, of one interval, instead of a live view.")] = False,
) -> None:
    """Show calls, errors, latency, spend, budgets, breakers and accounts; q ends, c, e and l sort.

    Numbers of calls are those of the server that answers, money and budgets those of all. With `--output json` each
    look is one line. Into a pipe or file a table is written once.
    """
    if session.options.output is Format.CSV:
        raise wrong_usage("A status is not a list", "Use --output table or json.")
    watch = Watch(session, scope or _widest_scope(session))
    watch.look()
    is_live = sys.stdout.isatty() and not Console().is_dumb_terminal
    if session.options.output is Format.JSON:
        _write_lines(watch, interval, once=once)
    elif once or not is_live:
        _until_counted(watch, interval)
        _print(watch.picture("c"))
    else:
        _show(watch, interval)


def _widest_scope(session: Session) -> str:
    """Return the platform if the credential may see its status, or the first scope on which it may.

    Raises:
        Failure: it may on none.
    """
    connection = session.connection
    own = connection.call(connection.stub(OperationsServiceStub).GetSession, pb.GetSessionRequest())
    stub, request = connection.stub(access_pb2_grpc.AccessServiceStub), access_pb2.ListAccessRequest()
    request.principal = own.principal
    scopes = [one.scope for one in connection.pages(stub.ListAccess, request, "access") if _STATUS in one.permissions]
    if not scopes:
        # The server says best what is missing.
        return own.tenant
    return _PLATFORM if _PLATFORM in scopes else min(scopes, key=lambda one: (one.count("/"), one))


def _until_counted(watch: Watch, interval: float) -> None:
    """Look again after the interval: rates are what has happened between two looks."""
    if watch.status is not None and watch.status.HasField("counters"):
        ends_at = time.monotonic() + interval + 2 * _RETRY_SECONDS
        time.sleep(interval)
        watch.look()
        while watch.meter.rates is None and time.monotonic() < ends_at:
            time.sleep(_RETRY_SECONDS / 2)
            watch.look()


def _print(shown: Picture) -> None:
    width = Console().width if sys.stdout.isatty() else _PIPED_WIDTH
    write_drawn(picture(shown, width=width, height=_UNLIMITED_HEIGHT), width=width)


def _write_lines(watch: Watch, interval: float, *, once: bool) -> None:
    if once:
        _until_counted(watch, interval)
        _write_line(watch)
        return
    while True:
        _write_line(watch)
        time.sleep(interval)
        watch.look()


def _write_line(watch: Watch) -> None:
    shown = watch.picture("c")
    line: dict[str, Any] = as_line(shown, as_json(shown.status))
    if shown.trouble:
        line = {"trouble": shown.trouble}
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _show(watch: Watch, interval: float) -> None:
    """Show picture after picture until q, and at once when a key is pressed or the terminal gets another size."""
    sort = "c"
    with keyboard() as keys, Live(screen=True, auto_refresh=False) as live:
        while True:
            ends_at = time.monotonic() + (_RETRY_SECONDS if watch.trouble else interval)
            while (left := ends_at - time.monotonic()) > 0:
                size = live.console.size
                shown = picture(watch.picture(sort, is_live=True), width=size.width, height=size.height)
                live.update(shown, refresh=True)
                pressed = keys.pressed(left, until=partial(_is_resized, live, size))
                if "q" in pressed:
                    return
                sort = next((key for key in reversed(pressed) if key in SORTS), sort)
            watch.look()


def _is_resized(live: Live, size: ConsoleDimensions) -> bool:
    return live.console.size != size
