"""The root of the family, and what several of its members carry."""

from dataclasses import dataclass
from typing import ClassVar


class TollhouseError(Exception):
    """A fact that stops a call; each subclass is a keyword-only dataclass whose `message()` says what to do."""

    reason: ClassVar[str] = "INTERNAL"

    def message(self) -> str:
        """Say in one sentence what is wrong and what to do about it."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.message()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One field of a request or a file that is wrong: its path (`prices[3].cost`) and why."""

    path: str
    description: str
