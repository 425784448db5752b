"""Who calls, as the rest of the server sees him."""

from dataclasses import dataclass

from tollhouse_server.names import PrincipalName


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

    @property
    def name(self) -> str:
        """Resource name of the principal."""
        return str(PrincipalName(self.tenant_id, self.principal_id))
