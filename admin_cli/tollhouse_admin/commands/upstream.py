"""`tollhouse upstream`: how it is going at all targets, now."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tollhouse.admin.v1 import traffic_pb2 as pb
from tollhouse.admin.v1.traffic_pb2_grpc import TrafficServiceStub
from tollhouse.v1 import generation_pb2

from tollhouse_admin.command import READ, Session, command, noun
from tollhouse_admin.connection import PAGE_SIZE
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.keyboard import keyboard
from tollhouse_admin.output import Format, show_list, table_text, write_json, write_table
from tollhouse_admin.rendering import as_json, enum_text
from tollhouse_admin.traffic_layouts import BREAKER, NARROW_BREAKER, NARROW_TARGET, TARGET

app = noun("Upstream: the live state of every target.")

_REFRESH_SECONDS = 2.0
_WIDE = 150
"""Columns of a terminal from which on everything is shown."""
_STYLES = {
    pb.BREAKER_STATE_OPEN: "red",
    pb.BREAKER_STATE_HALF_OPEN: "yellow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The traffic at one moment: the targets, and breakers in trouble whether or not a tier uses them."""

    targets: list[pb.Target]
    troubled: list[pb.Breaker]
    summary: pb.ListTargetsResponse

    def headline(self) -> str:
        """Return one line about everything."""
        waiting = [
            f"{one.count} {enum_text(generation_pb2.Priority.DESCRIPTOR, one.priority)}"
            for one in self.summary.waiting_calls
        ]
        at = self.summary.read_time.ToDatetime().strftime("%H:%M:%S UTC")
        in_flight = sum({(one.account, one.model): one.in_flight_count for one in self.targets}.values())
        return (
            f"{at} · {self.summary.process_count} processes · {in_flight} calls in flight · "
            f"waiting: {', '.join(waiting) or 'nobody'} · {len(self.troubled)} breakers in trouble"
        )


@command(app, "status", READ)
def status(
    session: Session,
    *,
    once: Annotated[bool, typer.Option("--once", help="One picture instead of a live view.")] = False,
) -> None:
    """Show every target, refreshed every two seconds until q or Ctrl-C; a pipe or file gets one picture."""
    if session.options.output is not Format.TABLE:
        _write(session.options.output, _picture(session))
    elif once or not sys.stdout.isatty() or Console().is_dumb_terminal:
        picture = _picture(session)
        sys.stdout.write(f"{picture.headline()}\n")
        write_table(TARGET.titles, [TARGET.row(one) for one in picture.targets], caption="\ntargets:")
        if picture.troubled:
            write_table(BREAKER.titles, [BREAKER.row(one) for one in picture.troubled], caption="\nbreakers:")
    else:
        _watch(session)


def _write(form: Format, picture: Picture) -> None:
    if form is Format.CSV:
        show_list(form, TARGET, picture.targets)
        return
    write_json(
        {
            **as_json(picture.summary),
            "targets": [as_json(one) for one in picture.targets],
            "troubledBreakers": [as_json(one) for one in picture.troubled],
        }
    )


def _picture(session: Session) -> Picture:
    stub = session.connection.stub(TrafficServiceStub)
    request = pb.ListTargetsRequest(page_size=PAGE_SIZE)
    targets: list[pb.Target] = []
    while True:
        page = session.connection.call(stub.ListTargets, request)
        targets.extend(page.targets)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    troubled = list(session.connection.pages(stub.ListBreakers, pb.ListBreakersRequest(troubled_only=True), "breakers"))
    page.ClearField("targets")
    return Picture(targets=targets, troubled=troubled, summary=page)


def _watch(session: Session) -> None:
    """Show picture after picture; a server that does not answer for a while is waited for with the last one."""
    picture = _picture(session)
    failure: Failure | None = None
    with keyboard() as keys, Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(_screen(picture, failure, is_wide=live.console.width >= _WIDE), refresh=True)
            if "q" in keys.pressed(_REFRESH_SECONDS):
                return
            try:
                picture, failure = _picture(session), None
            except Failure as error:
                if error.exit_code is not ExitCode.UNAVAILABLE:
                    raise
                failure = error


def _screen(picture: Picture, failure: Failure | None, *, is_wide: bool) -> Group:
    parts: list[Any] = [Text(picture.headline(), style="bold")]
    if failure is not None:
        parts.append(Text(failure.line(), style="red"))
    target, breaker = (TARGET, BREAKER) if is_wide else (NARROW_TARGET, NARROW_BREAKER)
    parts.append(Text("q ends", style="dim"))
    if picture.troubled:
        parts.append(_table(breaker, picture.troubled, [one.state for one in picture.troubled]))
    # Last, since it is the longest: what a terminal has no room for is cut off.
    parts.append(_table(target, picture.targets, [one.breaker.state for one in picture.targets]))
    return Group(*parts)


def _table(layout: Any, messages: Any, states: list[Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in layout.titles:
        table.add_column(title.replace("_", " ").replace(".", " ").upper())
    for message, state in zip(messages, states, strict=True):
        table.add_row(*(Text(table_text(cell)) for cell in layout.row(message)), style=_STYLES.get(state, ""))
    return table
