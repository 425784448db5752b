"""Separation of duties as data: what must not be in one pair of hands, and which roles are above it.

A role has a duty if it has any of its permissions. Conflicts are looked for when a right is given: between the roles
that someone holds, his own and those of his groups, wherever he holds them; and within a role that a tenant makes.

`platform-admin` is above all of them: somebody must be able to set everything up, and to help when nobody else can.
Whoever holds it is for that, not for daily work, and it is never a tenant's to give. `tenant-admin` is above those that
keep people of one tenant apart, for the same reason; increases of limits need a second person all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tollhouse_server.access.roles import LET_READ_CONTENT, READ_CONTENT, ROLES, Role

_PLATFORM_ADMIN: Final = frozenset({"platform-admin"})
_ADMINS: Final = frozenset({"platform-admin", "tenant-admin"})


@dataclass(frozen=True, slots=True)
class Duty:
    """What someone may do, and by which permissions; `verb` goes on after "may"."""

    verb: str
    permissions: frozenset[str]

    def is_in(self, role: Role) -> bool:
        """Tell whether a role has any of it."""
        return not self.permissions.isdisjoint(role.permissions)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two duties that one person must not have, except by the roles that are above it."""

    name: str
    one: Duty
    other: Duty
    above: frozenset[str]

    def between(self, held: Role, wanted: Role) -> tuple[Duty, Duty] | None:
        """Return what `held` and `wanted` have of it that must not come together."""
        if held.name in self.above or wanted.name in self.above:
            return None
        for first, second in ((self.one, self.other), (self.other, self.one)):
            if first.is_in(held) and second.is_in(wanted):
                return first, second
        return None


def _permissions(role: str, *prefixes: str) -> frozenset[str]:
    return frozenset(one for one in ROLES[role].permissions if one.startswith(prefixes))


_ASK = Duty("ask for increases of limits", frozenset({"limitIncreases.request"}))
_APPROVE = Duty("approve increases of limits", frozenset({"limitIncreases.approve"}))
_CUSTODY = Duty("handle upstream keys", _permissions("key-custodian", "upstreamKeys.", "accounts.", "keyPolicies."))
_CALL = Duty("send prompts", _permissions("caller", "generation.generate", "generation.embed"))
_READ_PROMPTS = Duty("read what others' calls were about", READ_CONTENT)
_LET_READ = Duty("let others read what calls were about", frozenset({LET_READ_CONTENT}))
_MONEY = Duty("settle what calls cost", frozenset({"suspense.resolve", "adjustments.create", "periods.close"}))

CONFLICTS: Final = (
    Conflict("who-asks-does-not-approve", _ASK, _APPROVE, _ADMINS),
    Conflict("key-custodians-send-no-prompts", _CUSTODY, _CALL, _PLATFORM_ADMIN),
    Conflict("key-custodians-read-no-prompts", _CUSTODY, _READ_PROMPTS, _PLATFORM_ADMIN),
    Conflict("finance-reads-no-prompts", _MONEY, _READ_PROMPTS, _ADMINS),
    # Nobody is above this one: else an administrator could give himself what he has not got.
    Conflict("who-lets-read-reads-no-prompts", _LET_READ, _READ_PROMPTS, frozenset()),
)


def conflicts_between(held: Role, wanted: Role) -> Iterator[tuple[str, Duty, Duty]]:
    """Yield each conflict that `wanted` makes with `held`, which may be the same role: its name and the two duties."""
    for conflict in CONFLICTS:
        if (found := conflict.between(held, wanted)) is not None:
            yield conflict.name, *found
