"""Resource names: `tenants/acme/departments/sales/projects/crm`, parsed strictly, formatted exactly.

Departments are flat names with a parent of their own, so a name says which tenant a thing belongs to, never where in
the department tree it is. `platform` is the scope of what belongs to no tenant.
"""

import re
from dataclasses import dataclass, fields
from functools import cache
from typing import ClassVar, Self, TypeAlias

from tollhouse_server.errors import FieldViolation, InvalidRequest

PLATFORM = "platform"
"""Scope of what belongs to no tenant, and the id of the tenant in which the platform's own principals live."""

# An id: 2 to 63 lower-case letters, digits, hyphens, a letter first.
_SLUG = r"[a-z][a-z0-9-]{1,62}"
_FORMS = {
    "api_key": "[a-z2-7]{12}",
    "attempt": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "bill_import": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "tier": "[a-z0-9][a-z0-9.-]{0,62}",
    "month": "20[0-9]{2}-(?:0[1-9]|1[0-2])",
    "model": "[a-z0-9][a-z0-9.-]{0,127}",
    "alias": "[a-z0-9][a-z0-9.-]{0,127}",
    "version": "current|[1-9][0-9]{0,17}",
}


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{_FORMS.get(part[1], _SLUG)})", template))


@dataclass(frozen=True, slots=True)
class _Name:
    """A name with the ids of its template as fields."""

    template: ClassVar[str]

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Return the parts of `text`.

        Raises:
            InvalidRequest: `text`, which came in the request's `field`, is not a name of this kind.
        """
        match = _pattern(cls.template).fullmatch(text)
        if match is None:
            raise invalid(field, f"must be of the form {cls.template}")
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return self.template.format(**{field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True, slots=True)
class TenantName(_Name):
    """A company or subsidiary."""

    template = "tenants/{tenant}"
    tenant: str


@dataclass(frozen=True, slots=True)
class DepartmentName(_Name):
    """A department, addressed flat."""

    template = "tenants/{tenant}/departments/{department}"
    tenant: str
    department: str


@dataclass(frozen=True, slots=True)
class DepartmentMoveName(_Name):
    """A move of a department, made or scheduled."""

    template = "tenants/{tenant}/departmentMoves/{department_move}"
    tenant: str
    department_move: str


@dataclass(frozen=True, slots=True)
class ProjectName(_Name):
    """A project of a department."""

    template = "tenants/{tenant}/departments/{department}/projects/{project}"
    tenant: str
    department: str
    project: str


@dataclass(frozen=True, slots=True)
class ProjectKeyName(_Name):
    """An API key that pays from a project."""

    template = "tenants/{tenant}/departments/{department}/projects/{project}/apiKeys/{api_key}"
    tenant: str
    department: str
    project: str
    api_key: str


@dataclass(frozen=True, slots=True)
class TenantKeyName(_Name):
    """An API key without a project, for administration."""

    template = "tenants/{tenant}/apiKeys/{api_key}"
    tenant: str
    api_key: str


@dataclass(frozen=True, slots=True)
class PrincipalName(_Name):
    """A person or a service."""

    template = "tenants/{tenant}/principals/{principal}"
    tenant: str
    principal: str


@dataclass(frozen=True, slots=True)
class IdentityProviderName(_Name):
    """An issuer of tokens that a tenant trusts."""

    template = "tenants/{tenant}/identityProviders/{identity_provider}"
    tenant: str
    identity_provider: str


@dataclass(frozen=True, slots=True)
class ClientIdentityName(_Name):
    """What a client's certificate says, bound to a principal."""

    template = "tenants/{tenant}/clientIdentities/{client_identity}"
    tenant: str
    client_identity: str


@dataclass(frozen=True, slots=True)
class GroupName(_Name):
    """A group of principals."""

    template = "tenants/{tenant}/groups/{group}"
    tenant: str
    group: str


@dataclass(frozen=True, slots=True)
class TenantRoleName(_Name):
    """A role that a tenant has made."""

    template = "tenants/{tenant}/roles/{role}"
    tenant: str
    role: str


@dataclass(frozen=True, slots=True)
class RoleGrantName(_Name):
    """A role given to a principal or a group on a scope."""

    template = "tenants/{tenant}/roleGrants/{role_grant}"
    tenant: str
    role_grant: str


@dataclass(frozen=True, slots=True)
class LimitName(_Name):
    """A quota or a budget."""

    template = "tenants/{tenant}/limits/{limit}"
    tenant: str
    limit: str


@dataclass(frozen=True, slots=True)
class LimitIncreaseName(_Name):
    """A temporary increase of a limit."""

    template = "tenants/{tenant}/limitIncreases/{limit_increase}"
    tenant: str
    limit_increase: str


@dataclass(frozen=True, slots=True)
class DeviceName(_Name):
    """Something that runs models itself."""

    template = "tenants/{tenant}/devices/{device}"
    tenant: str
    device: str


@dataclass(frozen=True, slots=True)
class ContentName(_Name):
    """What is kept of one call; the attempt's id is a UUID."""

    template = "tenants/{tenant}/contents/{attempt}"
    tenant: str
    attempt: str


@dataclass(frozen=True, slots=True)
class ContentPolicyName(_Name):
    """What of a tenant's calls is kept."""

    template = "tenants/{tenant}/contentPolicy"
    tenant: str


@dataclass(frozen=True, slots=True)
class ChargeRuleName(_Name):
    """A mark-up or discount of a tenant."""

    template = "tenants/{tenant}/chargeRules/{charge_rule}"
    tenant: str
    charge_rule: str


@dataclass(frozen=True, slots=True)
class PlatformChargeRuleName(_Name):
    """A mark-up or discount of the platform."""

    template = "chargeRules/{charge_rule}"
    charge_rule: str


@dataclass(frozen=True, slots=True)
class SharedCostName(_Name):
    """A cost that departments share."""

    template = "tenants/{tenant}/sharedCosts/{shared_cost}"
    tenant: str
    shared_cost: str


@dataclass(frozen=True, slots=True)
class DeliveryScheduleName(_Name):
    """When and where to statements go out."""

    template = "tenants/{tenant}/deliverySchedules/{delivery_schedule}"
    tenant: str
    delivery_schedule: str


@dataclass(frozen=True, slots=True)
class DeliveryName(_Name):
    """One statement on one way."""

    template = "tenants/{tenant}/deliveries/{delivery}"
    tenant: str
    delivery: str


@dataclass(frozen=True, slots=True)
class WalletName(_Name):
    """Money paid in advance."""

    template = "tenants/{tenant}/wallets/{wallet}"
    tenant: str
    wallet: str


@dataclass(frozen=True, slots=True)
class AlternativeCostName(_Name):
    """What a unit of work costs otherwise."""

    template = "tenants/{tenant}/alternativeCosts/{alternative_cost}"
    tenant: str
    alternative_cost: str


@dataclass(frozen=True, slots=True)
class DisplayCurrencyName(_Name):
    """The currency in which a tenant reads amounts."""

    template = "tenants/{tenant}/displayCurrency"
    tenant: str


@dataclass(frozen=True, slots=True)
class TierName(_Name):
    """A tier of the catalogue."""

    template = "tiers/{tier}"
    tier: str


@dataclass(frozen=True, slots=True)
class ModelName(_Name):
    """A model of the catalogue."""

    template = "models/{model}"
    model: str


@dataclass(frozen=True, slots=True)
class AliasName(_Name):
    """Another name of a model."""

    template = "aliases/{alias}"
    alias: str


@dataclass(frozen=True, slots=True)
class SuspenseName(_Name):
    """An attempt that is or was in suspense; the attempt's id is a UUID."""

    template = "tenants/{tenant}/suspense/{attempt}"
    tenant: str
    attempt: str


@dataclass(frozen=True, slots=True)
class RoleName(_Name):
    """A role."""

    template = "roles/{role}"
    role: str


@dataclass(frozen=True, slots=True)
class AccountName(_Name):
    """An upstream account."""

    template = "accounts/{account}"
    account: str


@dataclass(frozen=True, slots=True)
class UpstreamKeyName(_Name):
    """A key of an upstream account."""

    template = "accounts/{account}/upstreamKeys/{upstream_key}"
    account: str
    upstream_key: str


@dataclass(frozen=True, slots=True)
class KeyRotationName(_Name):
    """A rotation or revocation of a key of an upstream account."""

    template = "accounts/{account}/keyRotations/{key_rotation}"
    account: str
    key_rotation: str


@dataclass(frozen=True, slots=True)
class KeyPolicyName(_Name):
    """How the keys of an upstream account are rotated."""

    template = "accounts/{account}/keyPolicy"
    account: str


@dataclass(frozen=True, slots=True)
class PriceBookName(_Name):
    """A version of the price book; `current` is the one in force."""

    template = "priceBooks/{version}"
    version: str


@dataclass(frozen=True, slots=True)
class PeriodName(_Name):
    """A month of a tenant, as it is closed."""

    template = "tenants/{tenant}/periods/{month}"
    tenant: str
    month: str


@dataclass(frozen=True, slots=True)
class AdjustmentName(_Name):
    """A credit or correction."""

    template = "tenants/{tenant}/adjustments/{adjustment}"
    tenant: str
    adjustment: str


@dataclass(frozen=True, slots=True)
class PriceProposalName(_Name):
    """A price file that waits for a second person."""

    template = "priceProposals/{price_proposal}"
    price_proposal: str


@dataclass(frozen=True, slots=True)
class UsageExportName(_Name):
    """The export of one month's usage records."""

    template = "usageExports/{month}"
    month: str


@dataclass(frozen=True, slots=True)
class BillImportName(_Name):
    """A file of Google's bill."""

    template = "billImports/{bill_import}"
    bill_import: str


@dataclass(frozen=True, slots=True)
class BillReconciliationName(_Name):
    """A month of Google's bill beside the ledger."""

    template = "billReconciliations/{month}"
    month: str


@dataclass(frozen=True, slots=True)
class BillVarianceName(_Name):
    """A line in which Google's bill is not what the ledger booked."""

    template = "billVariances/{bill_variance}"
    bill_variance: str


ApiKeyName: TypeAlias = ProjectKeyName | TenantKeyName
Scope: TypeAlias = TenantName | DepartmentName | ProjectName
"""A node of a tenant's tree on which roles are granted."""

_SCOPES: tuple[type[Scope], ...] = (TenantName, DepartmentName, ProjectName)


def invalid(field: str, description: str) -> InvalidRequest:
    """Return the error for one wrong field."""
    return InvalidRequest(violations=(FieldViolation(path=field, description=description),))


def parse_api_key(text: str, field: str = "name") -> ApiKeyName:
    """Return the name of an API key, with or without a project.

    Raises:
        InvalidRequest: it is neither.
    """
    if _pattern(TenantKeyName.template).fullmatch(text):
        return TenantKeyName.parse(text, field)
    return ProjectKeyName.parse(text, field)


def parse_scope(text: str, field: str = "scope") -> Scope:
    """Return the name of a tenant, department or project.

    Raises:
        InvalidRequest: it is none of them.
    """
    for kind in _SCOPES:
        if _pattern(kind.template).fullmatch(text):
            return kind.parse(text, field)
    raise invalid(field, "must be the name of a tenant, department or project")


@cache
def _holders() -> tuple[re.Pattern[str], re.Pattern[str]]:
    kinds = "principals|roleGrants|limits|limitIncreases|departmentMoves|devices|identityProviders|clientIdentities"
    kinds += "|groups|roles|adjustments|chargeRules|sharedCosts|wallets|alternativeCosts|deliverySchedules|deliveries"
    others = r"/(?:suspense|contents|periods)/[a-z0-9-]+|/routingPolicy|/contentPolicy|/dataPolicy|/displayCurrency"
    key = r"/apiKeys/[a-z2-7]{12}"
    tail = rf"(?:/departments/-|(?:{key})?/boundLabels|{key}|{others}|/(?:{kinds})/{_SLUG})?"
    tenant = rf"(tenants/{_SLUG}(?:/departments/{_SLUG}(?:/projects/{_SLUG})?)?){tail}"
    flat = r"(?:priceBooks|priceProposals|roles|usageExports|chargeRules|currencyRates)/[a-z0-9-]{1,63}|catalogue"
    flat += r"|(?:tiers|models|aliases)/[a-z0-9.-]{1,128}"
    flat += r"|(?:billImports|billReconciliations|billVariances|skuMaps)/[a-z0-9-]{1,63}|reconciliationPolicy"
    platform = rf"{PLATFORM}|accounts/{_SLUG}(?:/(?:upstreamKeys|keyRotations)/{_SLUG}|/keyPolicy)?|{flat}"
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
