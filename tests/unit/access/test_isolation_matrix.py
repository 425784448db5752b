"""Every RPC x every role x where its grant lies: on the thing itself, above it, below it, beside it, in another tenant.

Through the rules that the chain goes by and the policy that it asks; `tests/acceptance/test_isolation.py` sees over
the wire that nothing is told either.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from tollhouse_server import services  # noqa: F401 - registers every proto
from tollhouse_server.access.policy import Policy
from tollhouse_server.access.roles import ROLES
from tollhouse_server.api.permissions import Rule, rules
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import domain_of

from tests.drivers.isolation import DEPARTMENT, PROJECT, TENANT, request_about, rows, short_name
from tests.unit.access.build import policy_of, principal

_ABOVE = {
    "platform": ("platform",),
    TENANT: ("platform", TENANT),
    DEPARTMENT: ("platform", TENANT, f"{TENANT}/departments/rnd", DEPARTMENT),
    PROJECT: ("platform", TENANT, f"{TENANT}/departments/rnd", DEPARTMENT, PROJECT),
}
"""For each scope where a grant counts: the tree has research below rnd."""

_PLACES = (
    *_ABOVE[PROJECT],
    f"{TENANT}/departments/other",
    f"{DEPARTMENT}/projects/other",
    f"{TENANT}/departments/research-2",
    *(one.replace("/demo", "/rival") for one in (TENANT, DEPARTMENT, PROJECT)),
    "tenants/platform",
)
_SCOPES = {
    "platform": {"platform"},
    "tenant": {TENANT},
    "node": {DEPARTMENT, PROJECT},
}
_ALL = [(short_name(rpc), rule) for rpc, rule in sorted(rules().items())]


def holder(role: str, place: str) -> Principal:
    """Return who holds a role on a place, with a credential of the project."""
    who = f"{role}-{_PLACES.index(place)}"
    return replace(principal(domain_of(place), who), project_id="assistant", department_ids=("rnd", "research"))


@cache
def policy() -> Policy:
    """Return a policy in which somebody holds each role on each place, and only that."""
    grants = [
        (domain_of(place), f"{role}-{number}", role, place) for number, place in enumerate(_PLACES) for role in ROLES
    ]
    departments = {"rnd": ("rnd",), "research": ("rnd", "research"), "other": ("other",), "research-2": ("research-2",)}
    tree = {(tenant, one): path for tenant in ("demo", "rival") for one, path in departments.items()}
    return policy_of(grants, tree)


def test_every_rpc_has_a_row() -> None:
    """An RPC about which nobody has said what it takes is not isolated by chance."""
    assert set(rows()) == {name for name, _ in _ALL}


@pytest.mark.parametrize(("name", "rule"), _ALL, ids=[name for name, _ in _ALL])
def test_a_role_counts_on_its_place_and_below_and_nowhere_else(name: str, rule: Rule) -> None:
    """Allowed exactly where the role has the permission and its grant is on the thing or above it."""
    if rows()[name] == "everyone":
        assert rule.permission is None
        return

    request = request_about(rule.rpc, {})
    for role, place, who in everybody():
        scope = rule.scope(request, who)
        assert rule.permission is not None
        allowed = policy().allows(who, rule.permission, scope)

        assert scope in _SCOPES[rows()[name]]
        expected = rule.permission in ROLES[role].permissions and place in _ABOVE[scope]
        assert allowed is expected, (role, place)


def everybody() -> Iterator[tuple[str, str, Principal]]:
    """Yield each role, each place and who holds it there."""
    for role in ROLES:
        for place in _PLACES:
            yield role, place, holder(role, place)
