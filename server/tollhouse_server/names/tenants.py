"""Names of what belongs to a tenant, but for money."""

from dataclasses import dataclass

from tollhouse_server.names.form import Name


@dataclass(frozen=True, slots=True)
class TenantName(Name):
    """A company or subsidiary."""

    template = "tenants/{tenant}"
    tenant: str


@dataclass(frozen=True, slots=True)
class DepartmentName(Name):
    """A department, addressed flat."""

    template = "tenants/{tenant}/departments/{department}"
    tenant: str
    department: str


@dataclass(frozen=True, slots=True)
class DepartmentMoveName(Name):
    """A move of a department, made or scheduled."""

    template = "tenants/{tenant}/departmentMoves/{department_move}"
    tenant: str
    department_move: str


@dataclass(frozen=True, slots=True)
class ProjectName(Name):
    """A project of a department."""

    template = "tenants/{tenant}/departments/{department}/projects/{project}"
    tenant: str
    department: str
    project: str


@dataclass(frozen=True, slots=True)
class ProjectKeyName(Name):
    """An API key that pays from a project."""

    template = "tenants/{tenant}/departments/{department}/projects/{project}/apiKeys/{api_key}"
    tenant: str
    department: str
    project: str
    api_key: str


@dataclass(frozen=True, slots=True)
class TenantKeyName(Name):
    """An API key without a project, for administration."""

    template = "tenants/{tenant}/apiKeys/{api_key}"
    tenant: str
    api_key: str


@dataclass(frozen=True, slots=True)
class PrincipalName(Name):
    """A person or a service."""

    template = "tenants/{tenant}/principals/{principal}"
    tenant: str
    principal: str


@dataclass(frozen=True, slots=True)
class IdentityProviderName(Name):
    """An issuer of tokens that a tenant trusts."""

    template = "tenants/{tenant}/identityProviders/{identity_provider}"
    tenant: str
    identity_provider: str


@dataclass(frozen=True, slots=True)
class ClientIdentityName(Name):
    """What a client's certificate says, bound to a principal."""

    template = "tenants/{tenant}/clientIdentities/{client_identity}"
    tenant: str
    client_identity: str


@dataclass(frozen=True, slots=True)
class GroupName(Name):
    """A group of principals."""

    template = "tenants/{tenant}/groups/{group}"
    tenant: str
    group: str


@dataclass(frozen=True, slots=True)
class TenantRoleName(Name):
    """A role that a tenant has made."""

    template = "tenants/{tenant}/roles/{role}"
    tenant: str
    role: str


@dataclass(frozen=True, slots=True)
class RoleGrantName(Name):
    """A role given to a principal or a group on a scope."""

    template = "tenants/{tenant}/roleGrants/{role_grant}"
    tenant: str
    role_grant: str


@dataclass(frozen=True, slots=True)
class LimitName(Name):
    """A quota or a budget."""

    template = "tenants/{tenant}/limits/{limit}"
    tenant: str
    limit: str


@dataclass(frozen=True, slots=True)
class LimitIncreaseName(Name):
    """A temporary increase of a limit."""

    template = "tenants/{tenant}/limitIncreases/{limit_increase}"
    tenant: str
    limit_increase: str


@dataclass(frozen=True, slots=True)
class DeviceName(Name):
    """Something that runs models itself."""

    template = "tenants/{tenant}/devices/{device}"
    tenant: str
    device: str


@dataclass(frozen=True, slots=True)
class ContentName(Name):
    """What is kept of one call; the attempt's id is a UUID."""

    template = "tenants/{tenant}/contents/{attempt}"
    tenant: str
    attempt: str


@dataclass(frozen=True, slots=True)
class ContentPolicyName(Name):
    """What of a tenant's calls is kept."""

    template = "tenants/{tenant}/contentPolicy"
    tenant: str


@dataclass(frozen=True, slots=True)
class SuspenseName(Name):
    """An attempt that is or was in suspense; the attempt's id is a UUID."""

    template = "tenants/{tenant}/suspense/{attempt}"
    tenant: str
    attempt: str
