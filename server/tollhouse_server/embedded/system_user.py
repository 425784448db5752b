"""The system user that PostgreSQL runs as when we are root, who it refuses to run as."""

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tollhouse_server.embedded.errors import EmbeddedStartFailed, StateDirectoryUnusable

EXISTING_ACCOUNT = "postgres"
OWN_ACCOUNT = "tollhouse-postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemUser:
    """A user to run a child as; `keep_search`: let it walk through directories that are closed to it."""

    name: str
    uid: int
    gid: int
    keep_search: bool = False


def user_for_postgres(*needed_paths: Path) -> SystemUser | None:
    """Return the user to run PostgreSQL as; None for ourselves. As root, an account that can reach `needed_paths`.

    No permission of any directory is widened: where a parent is closed (a checkout below a 0700 home of root), the
    process keeps the one capability that lets it walk through, which other processes of that account have not.

    Raises:
        StateDirectoryUnusable: the account cannot reach one of them, and no capability of Linux can help.
        EmbeddedStartFailed: there is no account for it, and none could be made.
    """
    if os.geteuid() != 0:
        return None
    user = _account()
    blocked = next((path for path in needed_paths if not _reachable(path, user)), None)
    if blocked is None:
        return user
    if not sys.platform.startswith("linux"):
        detail = f"PostgreSQL runs as {user.name}, which may not enter it; run as an ordinary user or move it"
        raise StateDirectoryUnusable(path=blocked, detail=detail)
    return replace(user, keep_search=True)


def _account() -> SystemUser:
    for name in (EXISTING_ACCOUNT, OWN_ACCOUNT):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return SystemUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    return _create_account()


def _create_account() -> SystemUser:
    useradd = shutil.which("useradd") or "/usr/sbin/useradd"
    command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", OWN_ACCOUNT]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
        entry = pwd.getpwnam(OWN_ACCOUNT)
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        detail = f"it refuses to run as root, and making the account {OWN_ACCOUNT} failed; run as an ordinary user"
        raise EmbeddedStartFailed(part="PostgreSQL", detail=detail) from error
    return SystemUser(name=OWN_ACCOUNT, uid=entry.pw_uid, gid=entry.pw_gid)


def _reachable(path: Path, user: SystemUser) -> bool:
    return all(_may_enter(parent, user) for parent in path.resolve().parents)


def _may_enter(directory: Path, user: SystemUser) -> bool:
    status = directory.stat()
    if status.st_uid == user.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == user.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)
