"""When a department may move, and whether it can: the rules, without a database."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from tollhouse_server.errors import DepartmentRing, MergeObstructed, ResourceNotFound
from tollhouse_server.names import DepartmentName, invalid

MAX_AHEAD: Final = timedelta(days=400)
"""A company plans its next fiscal year; what lies further ahead is a typing mistake."""

MAX_PAST: Final = timedelta(minutes=1)
"""How far the clocks of a caller and the database may differ: what is past by less than this means now."""


def effective_moment(asked: datetime | None, now: datetime) -> datetime | None:
    """Return when a move takes effect, or None for one that takes effect at once. `now` is the database's.

    Raises:
        InvalidRequest: `asked` is past, or too far ahead.
    """
    if asked is None or now - MAX_PAST <= asked <= now:
        return None
    if asked < now:
        raise invalid(
            "effective_time",
            f"must not be past: it is {now.isoformat(timespec='seconds')} by the server's clock, and what was booked "
            "stays where it was booked",
        )
    if asked > now + MAX_AHEAD:
        raise invalid("effective_time", f"must be at most {MAX_AHEAD.days} days ahead")
    return asked


class Tree:
    """A tenant's departments as they will be: moves are tried here before they are promised."""

    def __init__(self, tenant: str, parents: Mapping[str, str | None]) -> None:
        self._tenant = tenant
        self._parents = dict(parents)

    def path(self, department: str) -> tuple[str, ...]:
        """Return the ids from the top of the tree down to a department that exists."""
        path = [department]
        while (above := self._parents[path[-1]]) is not None:
            path.append(above)
        return tuple(reversed(path))

    def move(self, department: str, parent: str | None) -> None:
        """Put a department with all that is below it under `parent`, or at the top.

        Raises:
            ResourceNotFound: one of the two does not exist.
            DepartmentRing: the new parent is the department itself or below it.
        """
        for one in (department, parent):
            if one is not None and one not in self._parents:
                raise ResourceNotFound(name=str(DepartmentName(self._tenant, one)))
        if parent is not None and department in self.path(parent):
            name, below = DepartmentName(self._tenant, department), DepartmentName(self._tenant, parent)
            raise DepartmentRing(name=str(name), used_by=str(below))
        self._parents[department] = parent

    def merge(self, department: str, into: str) -> None:
        """Put what is directly below `department` below `into`, and take `department` out of the tree.

        Raises:
            ResourceNotFound, DepartmentRing: as `move`.
        """
        self.move(department, into)
        for below in [one for one, above in self._parents.items() if above == department]:
            self._parents[below] = into
        del self._parents[department]

    def expect(self, moves: Iterable[tuple[str, str, str | None]]) -> None:
        """Make the moves (kind, department, parent) that are scheduled; those that will fail change nothing."""
        for kind, department, parent in moves:
            try:
                if kind == "MERGE":
                    self.merge(department, str(parent))
                else:
                    self.move(department, parent)
            except (DepartmentRing, ResourceNotFound):
                continue


def failure_of(error: DepartmentRing | ResourceNotFound | MergeObstructed) -> str:
    """Return why a scheduled move could not be made any more, in a sentence."""
    if isinstance(error, MergeObstructed):
        return error.message()
    if isinstance(error, DepartmentRing):
        return f"{error.used_by} was {error.name} itself or below it by then, so the tree would have become a ring."
    return f"{error.name} had been deleted or merged by then."
