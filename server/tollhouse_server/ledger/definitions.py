"""The limits that apply to a call, kept while nothing in the table of limits has changed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from tollhouse_server.ledger import definition_store
from tollhouse_server.ledger.terms import CallTerms, LimitDefinition, Scope

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_KINDS_KEPT = 200_000
"""Kinds of calls remembered per process: some 100 MB at the worst."""

_Kind: TypeAlias = tuple[Scope, str, str]
"""Calls of one credential to one tier and model: the same limits apply to all of them."""


class LimitDefinitions:
    """A cache that is emptied as soon as the epoch of the limits moves; it cannot outlive a change."""

    def __init__(self) -> None:
        self.epoch = 0
        self._by_kind: dict[_Kind, tuple[LimitDefinition, ...]] = {}

    def forget(self, epoch: int) -> None:
        """Forget all; what is loaded from now on is as of `epoch`."""
        if epoch != self.epoch:
            self._by_kind.clear()
            self.epoch = epoch

    def of(self, terms: CallTerms) -> tuple[LimitDefinition, ...] | None:
        """Return the limits on every scope of the call, the narrowest scope first; None if they are to be loaded."""
        return self._by_kind.get((terms.scope, terms.tier, terms.model))

    def require(self, terms: CallTerms) -> tuple[LimitDefinition, ...]:
        """Return the limits of a call that was loaded, with no chance for anyone to forget it in between.

        Raises:
            LookupError: it was not.
        """
        known = self.of(terms)
        if known is None:
            raise LookupError("the limits of this call were not loaded")
        return known

    async def load(self, connection: "Connection", calls: Iterable[CallTerms]) -> None:
        """Load the limits of calls that are not known yet. The caller checks that the epoch is still the same after."""
        calls = list(calls)
        while missing := {(terms.scope, terms.tier, terms.model) for terms in calls if self.of(terms) is None}:
            epoch = self.epoch
            wanted = sorted({(scope.tenant_id, name) for scope, _, _ in missing for name in scope.limit_scopes()})
            found: dict[tuple[str, str], list[LimitDefinition]] = {}
            for limit in await definition_store.read_definitions(connection, wanted):
                found.setdefault((limit.tenant_id, limit.scope), []).append(limit)
            # Another tick may have learned meanwhile that the limits have changed: then this is old knowledge.
            if epoch == self.epoch:
                if len(self._by_kind) > _KINDS_KEPT:
                    self._by_kind.clear()
                self._by_kind.update({kind: _applicable(kind, found) for kind in missing})


def _applicable(kind: _Kind, found: dict[tuple[str, str], list[LimitDefinition]]) -> tuple[LimitDefinition, ...]:
    scope, tier, model = kind
    selectors = ("", f"tiers/{tier}", f"models/{model}")
    return tuple(
        limit
        for name in scope.limit_scopes()
        for limit in found.get((scope.tenant_id, name), ())
        if limit.selector in selectors
    )
