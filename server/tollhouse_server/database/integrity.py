"""A violated constraint, told as a fact of the product: by the constraint's name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError

from tollhouse_server.errors import TollhouseError


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


def _violated(error: IntegrityError) -> str:
    cause = error.orig.__cause__ if error.orig is not None else None
    return str(getattr(cause, "constraint_name", None) or "")
