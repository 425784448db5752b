"""Names that roles are granted on, and which of them decides about another name."""

import re
from functools import cache
from typing import TypeAlias

from tollhouse_server.names.form import PLATFORM, SLUG, invalid, pattern
from tollhouse_server.names.tenants import DepartmentName, ProjectKeyName, ProjectName, TenantKeyName, TenantName

ApiKeyName: TypeAlias = ProjectKeyName | TenantKeyName
Scope: TypeAlias = TenantName | DepartmentName | ProjectName
"""A node of a tenant's tree on which roles are granted."""

_SCOPES: tuple[type[Scope], ...] = (TenantName, DepartmentName, ProjectName)


def parse_api_key(text: str, field: str = "name") -> ApiKeyName:
    """Return the name of an API key, with or without a project.

    Raises:
        InvalidRequest: it is neither.
    """
    if pattern(TenantKeyName.template).fullmatch(text):
        return TenantKeyName.parse(text, field)
    return ProjectKeyName.parse(text, field)


def parse_scope(text: str, field: str = "scope") -> Scope:
    """Return the name of a tenant, department or project.

    Raises:
        InvalidRequest: it is none of them.
    """
    for kind in _SCOPES:
        if pattern(kind.template).fullmatch(text):
            return kind.parse(text, field)
    raise invalid(field, "must be the name of a tenant, department or project")


@cache
def _holders() -> tuple[re.Pattern[str], re.Pattern[str]]:
    kinds = "principals|roleGrants|limits|limitIncreases|departmentMoves|devices|identityProviders|clientIdentities"
    kinds += "|groups|roles|adjustments|chargeRules|sharedCosts|wallets|alternativeCosts|deliverySchedules|deliveries"
    others = r"/(?:suspense|contents|periods)/[a-z0-9-]+|/routingPolicy|/contentPolicy|/dataPolicy|/displayCurrency"
    key = r"/apiKeys/[a-z2-7]{12}"
    tail = rf"(?:/departments/-|(?:{key})?/boundLabels|{key}|{others}|/(?:{kinds})/{SLUG})?"
    tenant = rf"(tenants/{SLUG}(?:/departments/{SLUG}(?:/projects/{SLUG})?)?){tail}"
    flat = r"(?:priceBooks|priceProposals|roles|usageExports|chargeRules|currencyRates)/[a-z0-9-]{1,63}|catalogue"
    flat += r"|(?:tiers|models|aliases)/[a-z0-9.-]{1,128}"
    flat += r"|(?:billImports|billReconciliations|billVariances|skuMaps)/[a-z0-9-]{1,63}|reconciliationPolicy"
    platform = rf"{PLATFORM}|accounts/{SLUG}(?:/(?:upstreamKeys|keyRotations)/{SLUG}|/keyPolicy)?|{flat}"
    return re.compile(tenant), re.compile(platform)


def scope_of(name: str, field: str = "name") -> str:
    """Return the scope that decides who may touch `name`: the innermost tenant, department or project in it.

    Raises:
        InvalidRequest: `name`, which came in the request's `field`, is not a resource name.
    """
    in_tenant, on_platform = _holders()
    if match := in_tenant.fullmatch(name):
        return match[1]
    if on_platform.fullmatch(name):
        return PLATFORM
    raise invalid(field, "is not a resource name")


def domain_of(scope: str) -> str:
    """Return the tenant id of a scope, or `platform`."""
    return scope.split("/", 2)[1] if scope.startswith("tenants/") else PLATFORM
