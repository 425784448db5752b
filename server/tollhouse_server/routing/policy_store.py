"""The SQL of routing policies. Every function works in its caller's transaction."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.errors import EtagMismatch, FieldViolation, InvalidRequest, ResourceNotFound
from tollhouse_server.names import DepartmentName, ProjectName, Scope, TenantName, domain_of
from tollhouse_server.routing.policies import (
    EffectivePolicy,
    RoutingPolicy,
    effective_policy,
    scopes_above,
)
from tollhouse_server.routing.tables import ModelRow, RoutingPolicyRow, TierRow
from tollhouse_server.tenancy.store import active_department, active_project_path, require_active


async def load_policies(session: AsyncSession) -> dict[str, RoutingPolicy]:
    """Return every policy by the name of its scope."""
    rows = (await session.exec(select(RoutingPolicyRow))).all()
    return {row.scope: policy_of(row) for row in rows}


def policy_of(row: RoutingPolicyRow | None) -> RoutingPolicy:
    """Return what a scope says; nothing where it has no row."""
    return RoutingPolicy() if row is None else RoutingPolicy.model_validate(row.policy)


async def find_policy(session: AsyncSession, scope: Scope, *, lock: bool = False) -> RoutingPolicyRow | None:
    """Return a scope's row, None if it says nothing.

    Raises:
        ResourceNotFound: the scope does not exist.
    """
    # It locks the scope too: two who say the first word of one scope come after each other.
    await require_active(session, scope)
    query = select(RoutingPolicyRow).where(
        col(RoutingPolicyRow.tenant_id) == domain_of(str(scope)), col(RoutingPolicyRow.scope) == str(scope)
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return (await session.exec(query)).one_or_none()


async def policy_in_force(session: AsyncSession, scope: Scope) -> EffectivePolicy:
    """Return what all scopes from the tenant down to this one come to, as the database has them."""
    path: tuple[str, ...] = ()
    match scope:
        case DepartmentName():
            path = tuple((await active_department(session, scope)).path.split("."))
        case ProjectName():
            path = await active_project_path(session, scope)
    project = scope.project if isinstance(scope, ProjectName) else ""
    scopes = scopes_above(scope.tenant, path, project)
    query = select(RoutingPolicyRow).where(
        col(RoutingPolicyRow.tenant_id) == scope.tenant, col(RoutingPolicyRow.scope).in_(scopes)
    )
    found = {row.scope: policy_of(row) for row in (await session.exec(query)).all()}
    return effective_policy([(one, found[one]) for one in scopes if one in found])


async def change_policy(
    session: AsyncSession, scope: Scope, changes: Mapping[str, Any], *, version: int | None
) -> RoutingPolicyRow:
    """Write some fields of a scope's policy; None, or an empty list, clears one.

    Raises:
        ResourceNotFound: the scope does not exist.
        EtagMismatch: the policy is not at `version`; 0 is that of a scope that says nothing.
        InvalidRequest: a tier, model or department is not there, or a field does not belong to this kind of scope.
    """
    row = await find_policy(session, scope, lock=True)
    _check_version(row, scope, version)
    policy = RoutingPolicy.model_validate(policy_of(row).model_dump(exclude_unset=True) | dict(changes))
    await _check(session, scope, policy)
    content = policy.model_dump(mode="json", exclude_defaults=True)
    now = datetime.now(UTC)
    if row is None:
        row = RoutingPolicyRow(tenant_id=scope.tenant, scope=str(scope), policy=content, created_at=now, updated_at=now)
    elif policy_of(row) != policy:
        row.policy, row.version, row.updated_at = content, row.version + 1, now
    session.add(row)
    await session.flush()
    await bump(session, Topic.CATALOGUE)
    return row


async def delete_policy(session: AsyncSession, scope: Scope, *, version: int | None) -> RoutingPolicyRow:
    """Make a scope say nothing, and return what it said.

    Raises:
        ResourceNotFound: it says nothing, or does not exist.
        EtagMismatch: the policy is not at `version`.
    """
    row = await find_policy(session, scope, lock=True)
    if row is None:
        raise ResourceNotFound(name=f"{scope}/routingPolicy")
    _check_version(row, scope, version)
    await session.delete(row)
    await session.flush()
    await bump(session, Topic.CATALOGUE)
    return row


def _check_version(row: RoutingPolicyRow | None, scope: Scope, version: int | None) -> None:
    if version is not None and version != (0 if row is None else row.version):
        raise EtagMismatch(name=f"{scope}/routingPolicy")


async def _check(session: AsyncSession, scope: Scope, policy: RoutingPolicy) -> None:
    """Refuse names that are nowhere: in a list that allows, a slip of the pen would lock everybody out."""
    models = set((await session.exec(select(ModelRow.model))).all())
    tiers = set((await session.exec(select(TierRow.tier))).all())
    defects = [
        *_missing("allowed_tiers", policy.allowed_tiers or (), tiers),
        *_missing("allowed_models", policy.allowed_models or (), models),
        *_missing("tier_overrides", policy.tier_overrides, tiers),
        *(defect for one in policy.tier_overrides.values() for defect in _missing_models(one, models)),
        *_missing("auto.thresholds", [one.tier for one in policy.auto.thresholds] if policy.auto else (), tiers),
        *_defects_of_rules(policy, tiers, models),
    ]
    if policy.department_weights and not isinstance(scope, TenantName):
        defects.append(FieldViolation(path="department_weights", description="only a tenant's policy has them"))
    if defects:
        raise InvalidRequest(violations=tuple(defects))
    for department in sorted(policy.department_weights):
        await active_department(session, DepartmentName(scope.tenant, department))


def _defects_of_rules(policy: RoutingPolicy, tiers: set[str], models: set[str]) -> list[FieldViolation]:
    names = [one.name for one in policy.on_device_rules]
    defects = [
        defect
        for one in policy.on_device_rules
        for defect in (
            *_missing("on_device_rules.tiers", one.tiers, tiers),
            *_missing("on_device_rules.models", one.models, models),
        )
    ]
    if len(names) > len(set(names)):
        defects.append(FieldViolation(path="on_device_rules", description="two rules have the same name"))
    return defects


def _missing_models(choices: Any, models: set[str]) -> list[FieldViolation]:
    return _missing("tier_overrides.targets.model", [one.model for one in choices], models)


def _missing(path: str, names: Any, known: set[str]) -> list[FieldViolation]:
    return [
        FieldViolation(path=path, description=f"{name} is not in the catalogue")
        for name in sorted(names)
        if name not in known
    ]
