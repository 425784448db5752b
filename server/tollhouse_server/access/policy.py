"""One immutable policy: a Casbin enforcer over the grants of one moment, and the answers it has given.

Casbin's model is domain RBAC with the resource name as object: the tenant of the request must always be the tenant of
the grant, so that no grant reaches into another tenant whatever it says. Departments have flat names, so inheritance
cannot be a prefix of the name: it is looked up in the tree.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import casbin
from casbin.model import FastModel

from tollhouse_server.access.rights import EMPTY, TenantRights
from tollhouse_server.access.roles import ROLES
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import PLATFORM, domain_of

_MODEL: Final = """
[request_definition]
r = sub, dom, obj, act

[policy_definition]
p = sub, dom, obj, role

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = is_one_of(p.sub, r.sub) && r.dom == p.dom && within(r.obj, p.obj, r.dom) && gives(p.role, r.act, p.dom)
"""

_MAX_DECISIONS: Final = 200_000

# Positions of subjects, domain and object in a request: which rules are looked at is found by them.
_KEY_ORDER: Final = (0, 1, 2)

_NONE: Final[frozenset[str]] = frozenset()

_Rule: TypeAlias = list[str]


class Policy:
    """Decides by the rights that it was built from; never changed, only replaced."""

    def __init__(self, tenants: Mapping[str, TenantRights]) -> None:
        self._tenants = tenants
        self._decisions: dict[tuple[str, str, tuple[str, ...], str, str], bool] = {}
        model = FastModel(_KEY_ORDER)
        model.load_model_from_text(_MODEL)
        self._rules = model.model["p"]["p"].policy = _Rules(tenants)
        self._enforcer = casbin.FastEnforcer(model, cache_key_order=_KEY_ORDER)
        # Casbin logs every refusal with its arguments; ours are logged, and counted, by the chain.
        self._enforcer.logger.setLevel(logging.CRITICAL)
        self._enforcer.add_function("is_one_of", _is_one_of)
        self._enforcer.add_function("within", self._within)
        self._enforcer.add_function("gives", self._gives)

    def allows(self, principal: Principal, permission: str, scope: str) -> bool:
        """Tell whether a principal, with his groups, has `permission` on `scope` or on the whole platform.

        What his credential is narrowed to plays no part.
        """
        question = (principal.tenant_id, principal.principal_id, principal.groups, permission, scope)
        decision = self._decisions.get(question)
        if decision is None:
            if len(self._decisions) >= _MAX_DECISIONS:
                self._decisions.clear()
            decision = self._decisions[question] = self._decide(principal, permission, scope)
        return decision

    def _decide(self, principal: Principal, permission: str, scope: str) -> bool:
        rights = self._tenants.get(principal.tenant_id, EMPTY)
        subjects = _Subjects(principal.tenant_id, rights.subjects(principal.principal_id, principal.groups))
        return self._enforced(subjects, domain_of(scope), scope, permission) or (
            scope != PLATFORM and self._enforced(subjects, PLATFORM, PLATFORM, permission)
        )

    def _enforced(self, subjects: "_Subjects", domain: str, scope: str, permission: str) -> bool:
        # Without a rule to look at Casbin would say no as well, but after a while.
        if not self._rules.about(subjects, domain, scope):
            return False
        return bool(self._enforcer.enforce(subjects, domain, scope, permission))

    def _within(self, scope: str, granted: str, domain: str) -> bool:
        return granted in chain(self._tenants.get(domain, EMPTY), scope)

    def _gives(self, role: str, permission: str, tenant: str) -> bool:
        return permission in self.permissions_of(role, tenant)

    def permissions_of(self, role: str, tenant: str) -> frozenset[str]:
        """Return what a role gives that a grant of `tenant` names; nothing if there is no such role."""
        if (known := ROLES.get(role)) is not None:
            return known.permissions
        return self._tenants.get(tenant, EMPTY).roles.get(role, _NONE)


class _Subjects(tuple[str, ...]):
    """Everyone under whose name a principal of a tenant holds grants."""

    tenant: str

    def __new__(cls, tenant: str, names: tuple[str, ...]) -> "_Subjects":
        made = super().__new__(cls, names)
        made.tenant = tenant
        return made


class _Rules:
    """The grants as Casbin wants them: asked with a request, it has the rules on the request's chain of scopes only."""

    def __init__(self, tenants: Mapping[str, TenantRights]) -> None:
        self._tenants = tenants
        self._found: list[_Rule] = []

    def about(self, subjects: _Subjects, domain: str, scope: str) -> list[_Rule]:
        """Return the rules of `subjects` on `scope` and on what is above it.

        The domain of a rule is the tenant that the grant belongs to, whatever its scope says.
        """
        rights = self._tenants.get(subjects.tenant, EMPTY)
        held = [(subject, roles) for subject in subjects if (roles := rights.of(subject))]
        if not held:
            return []
        nodes = chain(self._tenants.get(domain, EMPTY), scope)
        return [
            [subject, subjects.tenant, node, role]
            for subject, roles in held
            for node in nodes
            for role in roles.get(node, "").split()
        ]

    def apply_filter(self, subjects: _Subjects, domain: str, scope: str) -> None:
        """Be the rules about this request."""
        self._found = self.about(subjects, domain, scope)

    def clear_filter(self) -> None:
        """Be none."""
        self._found = []

    def __iter__(self) -> Iterator[_Rule]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> _Rule:
        return self._found[index]


def _is_one_of(subject: Any, subjects: Any) -> bool:
    return subject in subjects


def chain(rights: TenantRights, scope: str) -> tuple[str, ...]:
    """Return `scope` and every scope above it in its tenant, the nearest first."""
    parts = scope.split("/")
    if len(parts) < 4:
        return (scope,)
    tenant, department = parts[1], parts[3]
    path = rights.path(department)
    above = [f"tenants/{tenant}/departments/{name}" for name in reversed(path)]
    # A project is asked for by the name that it had before a merge: who has it by its name of now may have it so too.
    moved = len(parts) > 4 and path[-1] != department
    now = ("/".join([*parts[:3], path[-1], *parts[4:]]),) if moved else ()
    # A department stands at the end of its own path.
    itself = () if scope in above[:1] else (scope,)
    return (*itself, *now, *above, f"tenants/{tenant}")
