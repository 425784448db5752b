"""What a policy is made of: the grants, groups, roles and tree of one tenant at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

PRINCIPALS: Final = "principals"
GROUPS: Final = "groups"

_NOTHING: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantRights:
    """One tenant's. Filled while it is read, never changed after it is in force.

    `grants` has for a subject, `principals/ann` or `groups/staff`, the roles that he holds on each scope. `barred` are
    principals that are disabled or deleted, `departments` for each department the ids from the top of the tree to it.
    """

    grants: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    roles: dict[str, frozenset[str]] = field(default_factory=dict)
    departments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    barred: set[str] = field(default_factory=set)

    def grant(self, kind: str, subject: str, role: str, scope: str) -> None:
        """Add a grant to a principal or a group."""
        scopes = self.grants.setdefault(f"{kind}/{subject}", {})
        scopes[scope] = (*scopes.get(scope, ()), role)

    def join(self, group: str, principal: str) -> None:
        """Add a member to a group."""
        self.groups[principal] = (*self.groups.get(principal, ()), group)

    def subjects(self, principal: str, claimed: tuple[str, ...]) -> tuple[str, ...]:
        """Return under which subjects a principal holds grants: none at all if he is barred."""
        if principal in self.barred:
            return ()
        member_of = self.groups.get(principal, ())
        return (f"{PRINCIPALS}/{principal}", *(f"{GROUPS}/{group}" for group in {*member_of, *claimed}))

    def of(self, subject: str) -> Mapping[str, tuple[str, ...]]:
        """Return the roles that a subject holds, by scope."""
        return self.grants.get(subject, _NOTHING)


EMPTY: Final = TenantRights()
"""The rights of a tenant that nobody knows."""
