"""The AppRoles of the server, and the files that a process logs in with."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

GATEWAY = "gateway"
KEY_CUSTODIAN = "key-custodian"
ROLES = (GATEWAY, KEY_CUSTODIAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRoleFiles:
    """Where one role's role_id and secret_id lie; read at every log-in, so that a replaced secret_id is picked up."""

    role_id_file: Path
    secret_id_file: Path


def policy_text(role: str) -> str:
    """Return the policy of `role` (HCL), the same for a laptop and for production."""
    return files("tollhouse_server.vault").joinpath("policies", f"{role}.hcl").read_text()
