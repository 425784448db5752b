"""Why someone may do something, or why not: from the same rows that a policy is made of, told in sentences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tollhouse_server.access.granting import role_name
from tollhouse_server.access.tables import RoleGrantRow
from tollhouse_server.names import PLATFORM, GroupName, RoleGrantName

MOST_FINDINGS: Final = 20


class Kind(StrEnum):
    """What was found; the wire has the same names."""

    GRANTED = "GRANTED"
    ELSEWHERE = "ELSEWHERE"
    ROLE_LACKS = "ROLE_LACKS"
    PRINCIPAL_DISABLED = "PRINCIPAL_DISABLED"
    PRINCIPAL_UNKNOWN = "PRINCIPAL_UNKNOWN"
    CREDENTIAL_NARROWED = "CREDENTIAL_NARROWED"
    NO_ROLE_HAS = "NO_ROLE_HAS"
    NO_GRANTS = "NO_GRANTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason; the grant that plays a part in it, if one does."""

    kind: Kind
    sentence: str
    grant: RoleGrantRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who asks for which permission, where, and what is known of him and of the way up from there.

    `scopes` are the scope and all above it, the platform last; `state` is the principal's, None if there is none;
    `known` are the permissions that there are.
    """

    principal: str
    permission: str
    scopes: tuple[str, ...]
    state: str | None
    is_narrowed_away: bool
    known: frozenset[str]


def explain(
    question: Question, grants: Sequence[RoleGrantRow], roles: Mapping[str, frozenset[str]]
) -> tuple[bool, list[Finding]]:
    """Return whether he may, and why, or, the nearest first, why not."""
    barriers = list(_barriers(question, grants))
    given, elsewhere, lacking = [], [], []
    for grant in grants:
        has_permission, is_above = question.permission in roles.get(grant.role, ()), grant.scope in question.scopes
        if has_permission and is_above:
            given.append(grant)
        elif has_permission:
            elsewhere.append(grant)
        elif is_above:
            lacking.append(grant)
    if given and not barriers:
        return True, [finding_of(one, Kind.GRANTED, question.permission) for one in _nearest_first(given, question)]
    misses = [finding_of(one, Kind.GRANTED, question.permission) for one in _nearest_first(given, question)]
    misses += [finding_of(one, Kind.ELSEWHERE, question.permission) for one in elsewhere]
    misses += [finding_of(one, Kind.ROLE_LACKS, question.permission) for one in _nearest_first(lacking, question)]
    return False, [*barriers, *misses][:MOST_FINDINGS]


def _barriers(question: Question, grants: Sequence[RoleGrantRow]) -> Iterable[Finding]:
    """Yield what keeps grants from counting at all."""
    who, permission = question.principal, question.permission
    if question.state == "DISABLED":
        yield Finding(kind=Kind.PRINCIPAL_DISABLED, sentence=f"{who} is disabled: none of its grants counts.")
    elif question.state != "ACTIVE" and not grants:
        yield Finding(kind=Kind.PRINCIPAL_UNKNOWN, sentence=f"There is no principal {who}, or it is deleted.")
    elif question.state == "DELETED":
        yield Finding(kind=Kind.PRINCIPAL_UNKNOWN, sentence=f"{who} is deleted.")
    if question.is_narrowed_away:
        sentence = f"The credential that you use may not be used for {permission}, whatever {who} may do."
        yield Finding(kind=Kind.CREDENTIAL_NARROWED, sentence=sentence)
    if permission not in question.known:
        sentence = f"No role has a permission {permission}; 'roles/platform-admin' lists all that there are."
        yield Finding(kind=Kind.NO_ROLE_HAS, sentence=sentence)
    if question.state == "ACTIVE" and not grants:
        yield Finding(kind=Kind.NO_GRANTS, sentence=f"{who} holds no role, by no group either.")


def _nearest_first(grants: Iterable[RoleGrantRow], question: Question) -> list[RoleGrantRow]:
    return sorted(grants, key=lambda grant: (question.scopes.index(grant.scope), grant.grant_id))


def finding_of(grant: RoleGrantRow, kind: Kind, permission: str = "") -> Finding:
    """Return the finding that a grant gives, lacks, or gives elsewhere a permission; or only that it is held."""
    through = f" through {GroupName(grant.tenant_id, grant.group_id)}" if grant.group_id else ""
    held = f"Grant {RoleGrantName(grant.tenant_id, grant.grant_id)} gives {role_name(grant.role)} on {grant.scope}"
    where = "everywhere" if grant.scope == PLATFORM else "there and below"
    said = {
        Kind.GRANTED: f"{held}{through}: it has {permission} {where}." if permission else f"{held}{through}.",
        Kind.ELSEWHERE: f"{held}{through}: it has {permission}, but only {where}.",
        Kind.ROLE_LACKS: f"{held}{through}, which does not have {permission}.",
    }
    return Finding(kind=kind, sentence=said[kind], grant=grant)
