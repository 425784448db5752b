"""Rows on their way to PostgreSQL: one text for each column, in PostgreSQL's own notation for arrays.

The driver looks at every element of an array before it encodes it, which took a fifth of a tick's worker time; JSON is
as quick to write, but costs PostgreSQL nearly twice as much to read (docs/decisions/0015).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

_TEXTS = frozenset({"text", "text[]"})
"""Types whose values may hold anything."""


class Columns:
    """The columns of one kind of row: `name type, name type, ...`, the types without spaces.

    A value is a str for text and text[] (as `array_text` writes it), JSON as orjson writes it for json and jsonb, and
    what orjson writes as PostgreSQL reads it for all others: int, UUID, datetime, date.
    """

    def __init__(self, declaration: str) -> None:
        pairs = [one.split() for one in declaration.split(",")]
        self.names = ", ".join(name for name, _ in pairs)
        self.selected = ", ".join(f"{name}::{kind}" if kind == "text[]" else name for name, kind in pairs)
        """The names as a SELECT from `unnest` gives them."""
        self._types = [kind for _, kind in pairs]

    def __len__(self) -> int:
        return len(self._types)

    def unnest(self, name: str, *, first: int, ordinality: str = "") -> str:
        """Return the FROM item that reads the rows from the parameters `first` and following.

        `ordinality` names a last column that counts the rows from 1.
        """
        arrays = ", ".join(
            f"${number}::text::{kind.removesuffix('[]')}[]" for number, kind in enumerate(self._types, first)
        )
        if ordinality:
            return f"unnest({arrays}) WITH ORDINALITY AS {name} ({self.names}, {ordinality})"
        return f"unnest({arrays}) AS {name} ({self.names})"

    def texts(self, rows: Iterable[Sequence[Any]]) -> list[str]:
        """Return the parameters for these rows, whose values are in the order of the columns."""
        columns = list(zip(*rows, strict=True))
        if not columns:
            return ["{}"] * len(self._types)
        return [
            array_text(values) if kind in _TEXTS else _as_array(values)
            for kind, values in zip(self._types, columns, strict=True)
        ]


def array_text(values: Sequence[str]) -> str:
    """Return texts as PostgreSQL writes an array of them."""
    text = _as_array(values)
    if "\\" not in text:
        return text
    # JSON knows escapes that PostgreSQL does not, such as that of a line's end.
    return f"{{{','.join(map(_quoted, values))}}}"


def _as_array(values: Sequence[object]) -> str:
    return f"{{{orjson.dumps(values)[1:-1].decode()}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
