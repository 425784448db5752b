"""What stands against a change of the tree."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError
from tollhouse_server.errors.resources import ResourceInUse

_POLICIES = {"routingPolicy": "routing policy", "dataPolicy": "data policy"}


@dataclass(eq=False, kw_only=True)
class DepartmentRing(ResourceInUse):
    """The department would be put into itself, or into one that is below it: `used_by`."""

    def message(self) -> str:
        where = "itself" if self.used_by == self.name else f"{self.used_by}, which lies below it"
        return f"{self.name} cannot be put into {where}; choose a department that is neither."


@dataclass(eq=False, kw_only=True)
class MergeObstructed(TollhouseError):
    """The department has something of its own of which nobody has said what becomes of it in a merge."""

    reason = "MERGE_OBSTRUCTED"
    name: str
    obstacle: str

    def message(self) -> str:
        if self.obstacle.endswith("/contentPolicy"):
            return f"{self.obstacle} keeps content of {self.name}; name another scope in it before the merge."
        if policy := _POLICIES.get(self.obstacle.rpartition("/")[2]):
            return f"{self.name} has a {policy} of its own; delete it, or put it on what moves, before the merge."
        return f"{self.name} has a limit of its own, {self.obstacle}; say whether it is to be transferred or to end."
