"""The limits that apply to a call, kept per scope while nothing in the table of limits has changed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tollhouse_server.ledger import store
from tollhouse_server.ledger.terms import CallTerms, LimitDefinition

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_SCOPES_KEPT = 200_000
"""Scopes remembered per process, most of them without a limit: some 50 MB at the worst."""


class LimitDefinitions:
    """A cache that is emptied as soon as the epoch of the limits moves; it cannot outlive a change."""

    def __init__(self) -> None:
        self._epoch = 0
        self._by_scope: dict[tuple[str, str], tuple[LimitDefinition, ...]] = {}

    async def load(self, connection: "Connection", epoch: int, calls: Iterable[CallTerms]) -> None:
        """Make sure that the limits of every scope of `calls` are known as of `epoch`."""
        if epoch != self._epoch or len(self._by_scope) > _SCOPES_KEPT:
            self._by_scope.clear()
            self._epoch = epoch
        wanted = {(terms.scope.tenant_id, name) for terms in calls for name in terms.scope.limit_scopes()}
        missing = sorted(wanted - self._by_scope.keys())
        if not missing:
            return
        found: dict[tuple[str, str], list[LimitDefinition]] = {scope: [] for scope in missing}
        for limit in await store.read_definitions(connection, missing):
            found[(limit.tenant_id, limit.scope)].append(limit)
        self._by_scope.update({scope: tuple(limits) for scope, limits in found.items()})

    def of(self, terms: CallTerms) -> list[LimitDefinition]:
        """Return the limits on every scope of the call, the narrowest scope first."""
        tenant = terms.scope.tenant_id
        return [limit for name in terms.scope.limit_scopes() for limit in self._by_scope[(tenant, name)]]
