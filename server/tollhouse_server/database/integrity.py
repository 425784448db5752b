"""What PostgreSQL refuses, told as a fact of the product: by the name of a constraint, or by a state of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError

from tollhouse_server.errors import PeriodClosed, TollhouseError

LOCK_NOT_AVAILABLE: Final = "55P03"
"""The SQLSTATE of a lock_timeout that has passed."""

CLOSED: Final = "TH004"
"""The SQLSTATE with which triggers refuse a change of a closed month."""


@contextmanager
def constraints(facts: Mapping[str, TollhouseError]) -> Iterator[None]:
    """Raise `facts[name]` when the block violates the constraint `name`; others stay the defects that they are."""
    try:
        yield
    except IntegrityError as error:
        fact = facts.get(_violated(error))
        if fact is None:
            raise
        raise fact from error


@contextmanager
def closed_months() -> Iterator[None]:
    """Raise PeriodClosed when the block would change a month that is closed: the database's own lock names it."""
    try:
        yield
    except DBAPIError as error:
        sqlstate, message = refusal_of(error)
        if sqlstate != CLOSED:
            raise
        raise PeriodClosed(name=message.removesuffix(" is closed")) from error


def refusal_of(error: DBAPIError) -> tuple[str, str]:
    """Return the SQLSTATE and the message with which PostgreSQL refused a statement."""
    cause = error.orig.__cause__ if error.orig is not None else None
    return str(getattr(cause, "sqlstate", None) or ""), str(getattr(cause, "message", ""))


def _violated(error: IntegrityError) -> str:
    cause = error.orig.__cause__ if error.orig is not None else None
    return str(getattr(cause, "constraint_name", None) or "")
