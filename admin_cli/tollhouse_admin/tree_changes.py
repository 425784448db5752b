"""What applying a tree changes, for a person: a line for each resource, and one for each field."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text
from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_admin.output import UNWRAPPED_WIDTH, Format, note, write_csv, write_json
from tollhouse_admin.plain_text import one_line
from tollhouse_admin.rendering import Cell, as_json, enum_text

_SIGNS: Final = {
    pb.TreeChange.ACTION_CREATED: ("+", "green"),
    pb.TreeChange.ACTION_CHANGED: ("~", "yellow"),
    pb.TreeChange.ACTION_DELETED: ("-", "red"),
}
_TITLES: Final = ["action", "resource", "field", "before", "after"]


def show_changes(form: Format, answer: pb.ApplyTreeResponse, *, dry_run: bool) -> None:
    """Write what has changed, or would."""
    if form is Format.JSON:
        write_json({"dryRun": dry_run, **as_json(answer)})
    elif form is Format.CSV:
        write_csv(_TITLES, list(_rows(answer)))
    else:
        _print(answer)
    done = "would be" if dry_run else "are"
    counts = Counter(enum_text(pb.TreeChange.Action.DESCRIPTOR, one.action) for one in answer.changes)
    parts = [f"{counts[action]} {action}" for action in ("created", "changed", "deleted")]
    note(f"{', '.join(parts)}, {answer.unchanged_count} {done} as they were")


def deletions(answer: pb.ApplyTreeResponse) -> list[str]:
    """Return the names of what is deleted."""
    return [one.resource for one in answer.changes if one.action == pb.TreeChange.ACTION_DELETED]


def _rows(answer: pb.ApplyTreeResponse) -> Iterator[list[Cell]]:
    for change in answer.changes:
        action = enum_text(pb.TreeChange.Action.DESCRIPTOR, change.action)
        for field in change.fields or [pb.TreeFieldChange()]:
            yield [action, change.resource, field.field, field.before, field.after]


def _print(answer: pb.ApplyTreeResponse) -> None:
    width = None if sys.stdout.isatty() else UNWRAPPED_WIDTH
    console = Console(width=width, highlight=False, soft_wrap=True)
    for change in answer.changes:
        sign, colour = _SIGNS[change.action]
        console.print(Text(f"{sign} {one_line(change.resource)}", style=colour))
        for field in change.fields:
            console.print(Text(f"    {_field(change.action, field)}"))


def _field(action: int, field: pb.TreeFieldChange) -> str:
    before, after = one_line(field.before), one_line(field.after)
    if action == pb.TreeChange.ACTION_CREATED:
        return f"{field.field}: {after}"
    return (
        f"{field.field}: {before}" if action == pb.TreeChange.ACTION_DELETED else f"{field.field}: {before} -> {after}"
    )
