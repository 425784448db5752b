"""The one place that says yes or no, in memory, by the grants that the database confirmed last."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from tollhouse_server.access.policy import Policy, chain
from tollhouse_server.access.rights import EMPTY, TenantRights
from tollhouse_server.access.rights_store import read_rights, versions
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.database.rows import SNAPSHOT, run_sql
from tollhouse_server.errors import PermissionDenied
from tollhouse_server.identity.directory import MAX_STALENESS_SECONDS
from tollhouse_server.identity.principal import Principal
from tollhouse_server.names import domain_of

_SPACING_SECONDS: Final = 0.02
"""At least this long lies between two questions to the database that refusals ask: a flood of them is no load."""


class Authorizer:
    """Decides from a policy that is built anew, and swapped in whole, when grants, people or the tree changed.

    Of a policy only the tenants are read again that have changed. `version` moves with every change of who is who and
    of who may what: while it stands, what was decided holds.
    """

    def __init__(self, database: Database, epoch_watch: EpochWatch) -> None:
        self._database = database
        self._watch = epoch_watch
        self._versions: Mapping[str, int] = {}
        self._tenants: Mapping[str, TenantRights] = {}
        self._policy = Policy({})
        self._refreshing = asyncio.Lock()
        self.version = 0
        epoch_watch.on_change(Topic.ACCESS, self.reload)
        epoch_watch.on_change(Topic.IDENTITY, self.reload)

    async def reload(self) -> Callable[[], None]:
        """Read what has changed from the database; what is returned puts it in force."""
        async with self._database.transaction() as session:
            # Read in pages: without it a policy would have one page from before a change and another from after it.
            await run_sql(session, SNAPSHOT)
            found = await versions(session)
            moved = [tenant for tenant, version in found.items() if self._versions.get(tenant) != version]
            read = await read_rights(session, moved)
        kept = {tenant: rights for tenant, rights in self._tenants.items() if tenant in found}
        return partial(self._put_in_force, found, {**kept, **read}, is_changed=bool(read))

    def _put_in_force(self, found: Mapping[str, int], tenants: Mapping[str, TenantRights], *, is_changed: bool) -> None:
        self.version += 1
        if is_changed:
            self._versions, self._tenants, self._policy = found, tenants, Policy(tenants)

    @property
    def is_certain(self) -> bool:
        """Tell whether what is known here is young enough to let anyone in."""
        return self._watch.staleness_seconds <= MAX_STALENESS_SECONDS

    @property
    def certain_until(self) -> float:
        """Return until which moment of `time.monotonic()` what is known here is young enough, in seconds."""
        return time.monotonic() - self._watch.staleness_seconds + MAX_STALENESS_SECONDS

    def allows(self, principal: Principal, permission: str, scope: str) -> bool:
        """Tell whether `principal` has `permission` on `scope`, and his credential may be used for it."""
        narrowed = principal.permissions
        return (narrowed is None or permission in narrowed) and self._policy.allows(principal, permission, scope)

    def require(self, principal: Principal, permission: str, scope: str) -> None:
        """Return if `principal` has `permission` on `scope`; whether the scope exists plays no part.

        Raises:
            PermissionDenied: he has not, or his credential is narrowed to something else.
        """
        if not self.allows(principal, permission, scope):
            raise PermissionDenied(permission=permission, scope=scope)

    async def authorize(self, principal: Principal, permission: str, scope: str) -> None:
        """Like `require`, but a refusal is given only on what the database says after the question was asked.

        So a grant works on every server as soon as the call that made it was answered.

        Raises:
            PermissionDenied: he has not.
            StoreUnavailable: the refusal cannot be confirmed.
        """
        if not self.allows(principal, permission, scope):
            await self.catch_up()
            self.require(principal, permission, scope)

    async def require_all(self, principal: Principal, permissions: Iterable[str], scope: str) -> None:
        """Return if `principal` has every one of `permissions` on `scope`: nobody gives more than he has.

        Raises:
            PermissionDenied: the first, in alphabetical order, that he has not.
            StoreUnavailable: what is known here is too old, or the refusal cannot be confirmed.
        """
        # The process may have stood still since the call was let in, and what is given stays.
        if not self.is_certain:
            await self.catch_up()
        for permission in sorted(permissions):
            await self.authorize(principal, permission, scope)

    def chain(self, scope: str) -> tuple[str, ...]:
        """Return `scope` and every scope above it in its tenant, the nearest first."""
        return chain(self._tenants.get(domain_of(scope), EMPTY), scope)

    async def catch_up(self) -> None:
        """Return when what is known here is as the database has it, or had it since this was asked.

        Raises:
            StoreUnavailable: the database cannot be asked.
        """
        asked_at = time.monotonic()
        async with self._refreshing:
            # Whoever waited here may have been answered by the refresh before his.
            if self._watch.staleness_seconds > time.monotonic() - asked_at:
                await asyncio.sleep(max(0.0, _SPACING_SECONDS - self._watch.staleness_seconds))
                await self._watch.refresh()
