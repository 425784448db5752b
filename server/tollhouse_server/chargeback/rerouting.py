"""What calls would have cost on another model, for the same usage; pure.

Whether that model would have answered as well, or with as many tokens, no ledger knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.pricing.usage import Tokens, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Sends what a tier or model served, `tiers/...` or `models/...`, to a model."""

    source: str
    model: str


class PastUsage(NamedTuple):
    """What one record says of usage; `usage` is its JSON, empty where nothing was reported."""

    tier: str
    model: str
    dispatched_at: datetime
    cost_nanos: int
    usage: Mapping[str, Any]


@dataclass(slots=True)
class RouteOutcome:
    """What one route would have changed."""

    route: Route
    calls: int = 0
    booked_nanos: int = 0
    simulated_nanos: int = 0
    unpriced_calls: int = 0


class Rerouting:
    """Reckons one record after the other; its memory is one sum for each route."""

    def __init__(self, routes: Sequence[Route], book: PriceBook) -> None:
        self._book = book
        self.records = 0
        self.booked_nanos = 0
        self.simulated_nanos = 0
        self.outcomes = [RouteOutcome(route) for route in routes]

    def play(self, records: Iterable[PastUsage]) -> None:
        """Go on with more records."""
        for record in records:
            self.records += 1
            self.booked_nanos += record.cost_nanos
            outcome = self._outcome(record)
            self.simulated_nanos += record.cost_nanos if outcome is None else self._moved(record, outcome)

    def _outcome(self, record: PastUsage) -> RouteOutcome | None:
        sources = (f"tiers/{record.tier}", f"models/{record.model}")
        return next((outcome for outcome in self.outcomes if outcome.route.source in sources), None)

    def _moved(self, record: PastUsage, outcome: RouteOutcome) -> int:
        nanos = self._nanos(record, outcome.route.model)
        outcome.calls += 1
        outcome.unpriced_calls += nanos is None
        simulated = record.cost_nanos if nanos is None else nanos
        outcome.booked_nanos += record.cost_nanos
        outcome.simulated_nanos += simulated
        return simulated

    def _nanos(self, record: PastUsage, model: str) -> int | None:
        if not record.usage:
            return None
        try:
            return price(self._book.terms(model, record.dispatched_at), usage_of(record.usage)).cost_nanos
        except ModelUnpriced:
            return None


def usage_of(document: Mapping[str, Any]) -> Usage:
    """Return the usage that a record keeps as JSON."""
    known = {name: value for name, value in document.items() if name in Usage.__dataclass_fields__}
    tokens = {name: Tokens(**value) for name, value in known.items() if isinstance(value, Mapping)}
    return Usage(**(known | tokens | {"flags": tuple(known.get("flags", ()))}))
