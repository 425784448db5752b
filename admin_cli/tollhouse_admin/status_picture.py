"""A status as it is shown on a terminal, whatever its size: what does not fit is what matters least."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from tollhouse.admin.v1 import operations_pb2 as pb
from tollhouse.v1 import generation_pb2

from tollhouse_admin.plain_text import one_line
from tollhouse_admin.rates import Rates, RpcRate
from tollhouse_admin.rendering import enum_text
from tollhouse_admin.status_sections import Section, sections_of
from tollhouse_admin.status_texts import age_text, dollars, latency_text, number

WIDE = 140
"""Columns from which on two tables stand beside each other."""

_GAP = 2
_NAME_WIDTH = 20

KEYS = "q ends · c calls · e errors · l latency first"

SORTS: dict[str, Callable[[RpcRate], float]] = {
    "c": lambda one: one.calls_per_second,
    "e": lambda one: one.errors_per_second,
    "l": lambda one: one.p99_seconds or 0.0,
}
"""By what RPCs are sorted, by the key that is pressed for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is shown: the last status, the rates since the one before, what is wrong with the connection."""

    status: pb.Status
    rates: Rates | None
    trouble: str = ""
    sort: str = "c"
    is_live: bool = False


def picture(shown: Picture, *, width: int, height: int) -> Group:
    """Return the picture for a terminal of this size."""
    head = [*headlines(shown)]
    rows = max(0, height - len(head))
    sections = sections_of(shown.status, shown.rates, SORTS.get(shown.sort, SORTS["c"]))
    tables = _beside(sections, rows, width) if width >= WIDE else _stacked(sections, rows, width)
    return Group(*head, *tables)


def headlines(shown: Picture) -> list[Text]:
    """Return the lines above the tables."""
    status, rates = shown.status, shown.rates
    found = [Text(one_line(_where(status)), style="bold")]
    if shown.trouble:
        found.append(Text(one_line(f"reconnecting: {shown.trouble}"), style="bold red"))
    found.append(_traffic(status, rates))
    found.append(_money(status))
    if status.HasField("counters"):
        found.append(_queue(status))
    if rates is not None and rates.refusals_per_second:
        refused = ", ".join(f"{reason} {number(rate)}/s" for reason, rate in rates.refusals_per_second)
        found.append(Text(one_line(f"refused  {refused}"), style="yellow"))
    if shown.is_live:
        found.append(Text(KEYS, style="dim"))
    for line in found:
        line.no_wrap, line.overflow = True, "ellipsis"
    return found


def _where(status: pb.Status) -> str:
    at = status.read_time.ToDatetime().strftime("%H:%M:%S UTC")
    if not status.HasField("counters"):
        return f"{at} · {status.scope}"
    counters = status.counters
    processes = ", ".join(f"{one.count} {one.role}{'s' * (one.count != 1)}" for one in counters.processes)
    server = counters.server_id.partition("/")[0]
    return f"{at} · {status.scope} · {server} {counters.version} · {processes}"


def _traffic(status: pb.Status, rates: Rates | None) -> Text:
    if not status.HasField("counters"):
        recent = status.recent_usage
        calls, tokens = number(recent.calls), number(recent.input_tokens + recent.output_tokens)
        return Text(f"calls    {calls} in the last minute · {tokens} tokens")
    if rates is None:
        return Text("calls    being counted ...")
    share = rates.errors_per_second / rates.calls_per_second if rates.calls_per_second else 0.0
    text = Text(f"calls    {number(rates.calls_per_second)}/s · ")
    text.append(f"errors {number(rates.errors_per_second)}/s ({share:.0%})", style="red" if share > 0.01 else "")
    p50, p99 = latency_text(rates.p50_seconds), latency_text(rates.p99_seconds)
    return text.append(f" · generation p50 {p50} p99 {p99} · tokens {number(rates.tokens_per_second)}/s")


def _money(status: pb.Status) -> Text:
    spend = status.spend
    text = Text(f"spend    {dollars(spend.last_hour)} last hour · {dollars(spend.month_to_date)} this month · ")
    suspense = status.suspense
    if not suspense.count:
        return text.append("suspense 0")
    oldest = age_text(suspense.oldest_suspend_time, status.read_time)
    return text.append(f"suspense {suspense.count}, the oldest for {oldest}", style="yellow")


def _queue(status: pb.Status) -> Text:
    waiting = [
        f"{one.count} {enum_text(generation_pb2.Priority.DESCRIPTOR, one.priority)}" for one in status.waiting_calls
    ]
    in_flight = sum(one.in_flight_count for one in status.accounts)
    text = Text(f"calls in flight {in_flight} upstream, {status.counters.in_flight_count} here · waiting ")
    text.append(", ".join(waiting) or "none", style="yellow" if waiting else "")
    troubled = len(status.troubled_breakers)
    text.append(" · breakers ").append(
        f"{troubled} in trouble" if troubled else "closed", style="red" if troubled else ""
    )
    return text.append(f" · {status.process_count} processes report")


def shares(wanted: Sequence[int], lines: int) -> list[int]:
    """Return how many rows each table gets of so many lines; each takes two more, and needs a row to be shown at all.

    Those that come first matter most: they are there first, and rows are given out in turn.
    """
    given = [0] * len(wanted)
    for index, count in enumerate(wanted):
        if count and lines >= 3:
            given[index], lines = 1, lines - 3
    while lines > 0:
        short = [index for index, count in enumerate(wanted) if 0 < given[index] < count]
        if not short:
            break
        for index in short[:lines]:
            given[index] += 1
        lines -= len(short[:lines])
    return given


def _stacked(sections: Sequence[Section], lines: int, width: int) -> list[RenderableType]:
    found: list[RenderableType] = []
    for section, rows in zip(sections, shares([len(one.rows) for one in sections], lines), strict=True):
        if rows:
            found += [Text(""), table_of(section, rows, width)]
    return found


def _beside(sections: Sequence[Section], lines: int, width: int) -> list[RenderableType]:
    """Put every second table to the right."""
    both = Table.grid(expand=True, padding=(0, _GAP))
    both.add_column(ratio=1)
    both.add_column(ratio=1)
    both.add_row(*(Group(*_stacked(half, lines, width // 2 - _GAP)) for half in (sections[::2], sections[1::2])))
    return [both]


def columns_kept(section: Section, width: int) -> int:
    """Return how many columns there is room for beside a name that can still be read; the last ones go first."""
    left, kept = width - _NAME_WIDTH, 1
    for index in range(1, len(section.titles)):
        left -= _GAP + max(cell_len(text) for text in (section.titles[index], *(row[index] for row, _ in section.rows)))
        if left < 0:
            break
        kept += 1
    return kept


def table_of(section: Section, rows: int, width: int) -> Table:
    """Return a table with its first rows, and what columns there is room for; numbers are to the right."""
    kept = columns_kept(section, width)
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    for index, title in enumerate(section.titles[:kept]):
        is_name = index == 0
        table.add_column(
            title,
            justify="left" if is_name else "right",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_name else None,
        )
    for cells, style in section.rows[:rows]:
        table.add_row(*(Text(one_line(cell)) for cell in cells[:kept]), style=style)
    return table


def as_line(shown: Picture, status_json: dict[str, Any]) -> dict[str, Any]:
    """Return the picture for programs."""
    rates = shown.rates
    return {
        "status": status_json,
        "rates": None
        if rates is None
        else {
            "seconds": rates.seconds,
            "callsPerSecond": rates.calls_per_second,
            "errorsPerSecond": rates.errors_per_second,
            "tokensPerSecond": rates.tokens_per_second,
            "p50Seconds": rates.p50_seconds,
            "p99Seconds": rates.p99_seconds,
            "refusalsPerSecond": dict(rates.refusals_per_second),
        },
    }
