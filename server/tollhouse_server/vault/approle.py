"""The AppRoles of the server, and the files that a process logs in with."""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from tollhouse_server.vault.secret_text import SecretText

GATEWAY = "gateway"
KEY_CUSTODIAN = "key-custodian"
ROLES = (GATEWAY, KEY_CUSTODIAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRoleFiles:
    """Where one role's role_id and secret_id lie; read at every log-in, so that a replaced secret_id is picked up.

    The second file may hold a wrapping token instead, which gives the secret_id to the first who asks: `secret_id` is
    then what the process that started this one was given, for all processes of a server.
    """

    role_id_file: Path
    secret_id_file: Path
    secret_id: SecretText | None = None


# Vault names its tokens hvs., hvb. and hvr., OpenBao s., b. and r.; a secret_id is a UUID unless somebody chose it.
_TOKEN: Final = re.compile(r"(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}")


def is_wrapping_token(text: str) -> bool:
    """Tell a wrapping token from a secret_id."""
    return _TOKEN.fullmatch(text) is not None


def policy_text(role: str) -> str:
    """Return the policy of `role` (HCL), the same for a laptop and for production."""
    return files("tollhouse_server.vault").joinpath("policies", f"{role}.hcl").read_text()
