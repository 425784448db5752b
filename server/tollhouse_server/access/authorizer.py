"""The one place that says yes or no, in memory, by the grants that the database confirmed last."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from tollhouse_server.access.policy import Policy
from tollhouse_server.access.store import all_grants
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import PermissionDenied
from tollhouse_server.identity.principal import Principal
from tollhouse_server.tenancy.store import department_paths

_SPACING_SECONDS: Final = 0.02
"""At least this long lies between two questions to the database that refusals ask: a flood of them is no load."""


class Authorizer:
    """Decides from a policy that is built anew, and swapped in whole, when grants, people or the tree changed."""

    def __init__(self, database: Database, epoch_watch: EpochWatch) -> None:
        self._database = database
        self._watch = epoch_watch
        self._policy = Policy((), {})
        self._refreshing = asyncio.Lock()
        epoch_watch.on_change(Topic.ACCESS, self.reload)
        epoch_watch.on_change(Topic.IDENTITY, self.reload)

    async def reload(self) -> Callable[[], None]:
        """Build a policy from the database; what is returned puts it in force."""
        async with self._database.transaction() as session:
            grants = await all_grants(session)
            departments = await department_paths(session)
        return partial(self._put_in_force, Policy(grants, departments))

    def _put_in_force(self, policy: Policy) -> None:
        self._policy = policy

    def require(self, principal: Principal, permission: str, scope: str) -> None:
        """Return if `principal` has `permission` on `scope`; whether the scope exists plays no part.

        Raises:
            PermissionDenied: he has not.
        """
        if not self._policy.allows(principal.name, permission, scope):
            raise PermissionDenied(permission=permission, scope=scope)

    async def authorize(self, principal: Principal, permission: str, scope: str) -> None:
        """Like `require`, but a refusal is given only on what the database says after the question was asked.

        So a grant works on every server as soon as the call that made it was answered.

        Raises:
            PermissionDenied: he has not.
            StoreUnavailable: the refusal cannot be confirmed.
        """
        if not self._policy.allows(principal.name, permission, scope):
            await self._catch_up()
            self.require(principal, permission, scope)

    async def require_all(self, principal: Principal, permissions: Iterable[str], scope: str) -> None:
        """Return if `principal` has every one of `permissions` on `scope`: nobody gives more than he has.

        Raises:
            PermissionDenied: the first, in alphabetical order, that he has not.
        """
        for permission in sorted(permissions):
            await self.authorize(principal, permission, scope)

    async def _catch_up(self) -> None:
        asked_at = time.monotonic()
        async with self._refreshing:
            # Whoever waited here may have been answered by the refresh before his.
            if self._watch.staleness_seconds > time.monotonic() - asked_at:
                await asyncio.sleep(max(0.0, _SPACING_SECONDS - self._watch.staleness_seconds))
                await self._watch.refresh()
