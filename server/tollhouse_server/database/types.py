"""What the rows of several rooms have in common, and the column types that SQLAlchemy does not know."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, DateTime, FetchedValue, String, cast, func, type_coerce
from sqlalchemy.types import UserDefinedType

INSTANT: Final = DateTime(timezone=True)
# The column has its default from the migration; what the database chose is read back.
NOW: Final[Mapping[str, Any]] = {"server_default": FetchedValue()}


class LTree(UserDefinedType[str]):
    """PostgreSQL's `ltree`, as dotted text on this side."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "ltree"

    def bind_expression(self, bindvalue: BindParameter[str]) -> ColumnElement[str]:
        return func.text2ltree(type_coerce(bindvalue, String), type_=self)

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        return cast(column, String)
