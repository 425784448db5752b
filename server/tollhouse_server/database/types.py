"""Column types that SQLAlchemy does not know."""

from typing import Any

from sqlalchemy import BindParameter, ColumnElement, String, cast, func, type_coerce
from sqlalchemy.types import UserDefinedType


class LTree(UserDefinedType[str]):
    """PostgreSQL's `ltree`, as dotted text on this side."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "ltree"

    def bind_expression(self, bindvalue: BindParameter[str]) -> ColumnElement[str]:
        return func.text2ltree(type_coerce(bindvalue, String), type_=self)

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        return cast(column, String)
