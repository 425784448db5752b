"""What a policy is made of: the grants, groups, roles and tree of one tenant at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

PRINCIPALS: Final = "principals"
GROUPS: Final = "groups"

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantRights:
    """One tenant's. Filled while it is read, never changed after it is in force.

    `grants` has for a subject, `principals/ann` or `groups/staff`, the roles that he holds on each scope; `groups` for
    a principal those that he is in; `departments` for each department the ids from the top of the tree to it. `barred`
    are principals that are disabled or deleted.

    Several names are one text, with spaces between them: a hundred thousand small containers would make every full
    collection of garbage stop the process for a third of a second, and a text costs it nothing.
    """

    grants: dict[str, dict[str, str]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    roles: dict[str, frozenset[str]] = field(default_factory=dict)
    departments: dict[str, str] = field(default_factory=dict)
    barred: set[str] = field(default_factory=set)

    def grant(self, kind: str, subject: str, role: str, scope: str) -> None:
        """Add a grant to a principal or a group."""
        scopes = self.grants.setdefault(f"{kind}/{subject}", {})
        scopes[scope] = _joined(scopes.get(scope), role)

    def join(self, group: str, principal: str) -> None:
        """Add a member to a group."""
        self.groups[principal] = _joined(self.groups.get(principal), group)

    def add_department(self, department: str, path: Sequence[str]) -> None:
        """Add a department, with the ids from the top of the tree to it."""
        self.departments[department] = " ".join(path)

    def subjects(self, principal: str, claimed: tuple[str, ...]) -> tuple[str, ...]:
        """Return under which subjects a principal holds grants: none at all if he is barred."""
        if principal in self.barred:
            return ()
        member_of = self.groups.get(principal, "").split()
        return (f"{PRINCIPALS}/{principal}", *(f"{GROUPS}/{group}" for group in {*member_of, *claimed}))

    def of(self, subject: str) -> Mapping[str, str]:
        """Return the roles that a subject holds, by scope."""
        return self.grants.get(subject, _NOTHING)

    def path(self, department: str) -> list[str]:
        """Return the ids from the top of the tree to a department; itself alone if nobody knows it."""
        return self.departments.get(department, department).split()


def _joined(names: str | None, name: str) -> str:
    return name if names is None else f"{names} {name}"


EMPTY: Final = TenantRights()
"""The rights of a tenant that nobody knows."""
