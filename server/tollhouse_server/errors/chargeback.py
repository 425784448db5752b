"""What stands against a change of a month."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class PeriodClosed(TollhouseError):
    """The month is locked for good; what was wrong in it is corrected in a later one."""

    reason = "PERIOD_CLOSED"
    name: str

    def message(self) -> str:
        return f"{self.name} is closed and never changes; enter an adjustment into a later month, for this one."


@dataclass(eq=False, kw_only=True)
class PeriodObstructed(TollhouseError):
    """Something stands against closing the month; `obstacles` says all of it."""

    reason = "PERIOD_OBSTRUCTED"
    name: str
    obstacles: str

    def message(self) -> str:
        return f"{self.name} cannot be closed: {self.obstacles}."
