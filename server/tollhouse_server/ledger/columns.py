"""Rows on their way to PostgreSQL: one text for each column, in PostgreSQL's own notation for arrays.

The driver looks at every element of an array before it encodes it, which took a fifth of a tick's worker time; JSON is
as quick to write, but costs PostgreSQL nearly twice as much to read (docs/decisions/0015).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

_QUOTED = frozenset({"text", "text[]", "bytea", "json", "jsonb"})
"""Types whose values may hold anything, braces and quotes too."""

_BETWEEN = "\x1f"
"""The unit separator of ASCII, which no text that is worth keeping holds."""


class Columns:
    """The columns of one kind of row: `name type, name type, ...`, the types without spaces.

    A value is a str for text, bytea (as `\\x...`), json, jsonb and text[] (as `array_text`), and what orjson writes as
    PostgreSQL reads it for all others: int, UUID, datetime, date.
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
            array_text(values) if kind in _QUOTED else f"{{{orjson.dumps(values)[1:-1].decode()}}}"
            for kind, values in zip(self._types, columns, strict=True)
        ]


def array_text(values: Sequence[str]) -> str:
    """Return texts as PostgreSQL writes an array of them."""
    if not values:
        return "{}"
    joined = _BETWEEN.join(values)
    if joined.count(_BETWEEN) == len(values) - 1:
        return f'{{"{_escaped(joined).replace(_BETWEEN, _NEXT)}"}}'
    return f'{{"{_NEXT.join(map(_escaped, values))}"}}'


_NEXT = '","'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
