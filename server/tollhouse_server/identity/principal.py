"""Who calls, as the rest of the server sees him."""

from dataclasses import dataclass, field

from tollhouse_server.names import PrincipalName, ProjectName, TenantName


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. `department_ids` run from the top of the tree to the project's own department.

    `environment` is that of the credential, `live` or `test`. `groups` are the ids of groups that the credential says
    he is in, besides those that he is a member of. `permissions` are all that the credential may be used for; None
    means whatever the principal may.
    """

    tenant_id: str
    principal_id: str
    credential_id: str
    credential_name: str
    project_id: str | None
    department_ids: tuple[str, ...]
    environment: str
    groups: tuple[str, ...] = ()
    permissions: frozenset[str] | None = None
    home: str = field(init=False, compare=False)
    """Name of the credential's project, or of its tenant if it has none."""

    def __post_init__(self) -> None:
        # Once, and not at each of his calls.
        object.__setattr__(self, "home", self._home())

    def _home(self) -> str:
        if self.project_id is None:
            return str(TenantName(self.tenant_id))
        return str(ProjectName(self.tenant_id, self.department_ids[-1], self.project_id))

    @property
    def name(self) -> str:
        """Resource name of the principal."""
        return str(PrincipalName(self.tenant_id, self.principal_id))
