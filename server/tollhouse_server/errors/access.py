"""What keeps a right from being given."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class DutiesConflict(TollhouseError):
    """Someone would hold two duties that must be kept apart: by two roles, or by one that has both."""

    reason = "DUTIES_CONFLICT"
    conflict: str
    subject: str
    held: str
    held_duty: str
    wanted: str
    wanted_duty: str

    def message(self) -> str:
        if self.held == self.wanted:
            return (
                f"{self.wanted} would be allowed to {self.held_duty} and to {self.wanted_duty}: "
                "the two duties must be different people's; make two roles."
            )
        return (
            f"{self.subject} holds {self.held}, which may {self.held_duty}; {self.wanted} may {self.wanted_duty}: "
            "the two duties must be different people's."
        )


@dataclass(eq=False, kw_only=True)
class GroupFull(TollhouseError):
    """A group would have more members than it may."""

    reason = "GROUP_FULL"
    name: str
    most: int
    wanted: int

    def message(self) -> str:
        return f"{self.name} may have {self.most} members; this would make {self.wanted}."
