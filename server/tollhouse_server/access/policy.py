"""One immutable policy: a Casbin enforcer over the grants of one moment, and the answers it has given.

Casbin's model is domain RBAC with the resource name as object: the tenant of the request must always be the tenant of
the grant, so that no grant reaches into another tenant whatever it says. Departments have flat names, so inheritance
cannot be a prefix of the name: it is looked up in the tree.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Final

import casbin
from casbin.model import FastModel

from tollhouse_server.access.roles import ROLES
from tollhouse_server.names import PLATFORM, domain_of

_MODEL: Final = """
[request_definition]
r = sub, dom, obj, act

[policy_definition]
p = sub, dom, obj, role

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = r.sub == p.sub && r.dom == p.dom && within(r.obj, p.obj) && g(p.role, r.act)
"""

_MAX_DECISIONS: Final = 200_000

# Positions of subject and domain: only a subject's own grants in the domain asked for are looked at.
_KEY_ORDER: Final = (0, 1)

Departments = Mapping[tuple[str, str], tuple[str, ...]]
"""For (tenant, department) the ids from the top of the tree down to it."""


class Policy:
    """Decides by the grants and the tree that it was built from; never changed, only replaced."""

    def __init__(self, grants: Iterable[tuple[str, str, str, str]], departments: Departments) -> None:
        self._departments = departments
        self._decisions: dict[tuple[str, str, str], bool] = {}
        model = FastModel(_KEY_ORDER)
        model.load_model_from_text(_MODEL)
        for tenant, principal, role, scope in grants:
            subject = f"tenants/{tenant}/principals/{principal}"
            model.model["p"]["p"].policy.append([subject, domain_of(scope), scope, role])
        for name, known in ROLES.items():
            model.model["g"]["g"].policy.extend([name, permission] for permission in known.permissions)
        self._enforcer = casbin.FastEnforcer(model, cache_key_order=_KEY_ORDER)
        # Casbin logs every refusal with its arguments; ours are logged, and counted, by the chain.
        self._enforcer.logger.setLevel(logging.CRITICAL)
        self._enforcer.add_function("within", self._within)
        self._enforcer.build_role_links()

    def allows(self, subject: str, permission: str, scope: str) -> bool:
        """Tell whether `subject`, a principal's name, has `permission` on `scope` or on the whole platform."""
        question = (subject, permission, scope)
        decision = self._decisions.get(question)
        if decision is None:
            if len(self._decisions) >= _MAX_DECISIONS:
                self._decisions.clear()
            decision = self._decisions[question] = self._decide(subject, permission, scope)
        return decision

    def _decide(self, subject: str, permission: str, scope: str) -> bool:
        return bool(self._enforcer.enforce(subject, domain_of(scope), scope, permission)) or (
            scope != PLATFORM and bool(self._enforcer.enforce(subject, PLATFORM, PLATFORM, permission))
        )

    def _within(self, scope: str, granted: str) -> bool:
        return granted in self.chain(scope)

    def chain(self, scope: str) -> tuple[str, ...]:
        """Return `scope` and every scope above it in its tenant, the nearest first."""
        parts = scope.split("/")
        if len(parts) < 4:
            return (scope,)
        tenant, department = parts[1], parts[3]
        path = self._departments.get((tenant, department), (department,))
        above = [f"tenants/{tenant}/departments/{name}" for name in reversed(path)]
        return (scope, *above, f"tenants/{tenant}")
