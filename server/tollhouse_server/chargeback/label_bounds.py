"""A bound on the values of free labels: statements list every value, so callers must not make them without end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

import structlog

from tollhouse_server.chargeback import free_label_store as store
from tollhouse_server.chargeback.free_label_store import Pair
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

OTHER: Final = "other"
"""The value under which a call is booked whose own value is one too many; it never counts itself."""


@dataclass(slots=True)
class _Known:
    """What this process knows of a tenant's month; once it is full its values are all that there will be."""

    month: date
    values: set[Pair] = field(default_factory=set)
    is_full: bool = False
    is_told: bool = False


def month_now() -> date:
    """Return the first day of the month, of UTC."""
    return datetime.now(UTC).date().replace(day=1)


class LabelBounds:
    """Keeps free labels within so many distinct values for each tenant and calendar month (UTC).

    Values seen before are answered from memory; a new one asks PostgreSQL once, and in a full month nothing asks.
    """

    def __init__(
        self, database: Database, metrics: Metrics, *, most_values: int, month: Callable[[], date] = month_now
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._most_values = most_values
        self._month = month
        self._known: dict[str, _Known] = {}

    async def bounded(self, free: Mapping[str, str], *, tenant: str) -> Mapping[str, str]:
        """Return the labels to book: values beyond the bound are `OTHER`. A call is never refused for its labels."""
        known = self._known_of(tenant)
        new = [pair for pair in free.items() if pair not in known.values and pair[1] != OTHER]
        if new and not known.is_full:
            await self._admit(tenant, known, new)
        beyond = [label for label, value in new if (label, value) not in known.values]
        if not beyond:
            return free
        self._tell(tenant, known)
        return {**free, **dict.fromkeys(beyond, OTHER)}

    def _known_of(self, tenant: str) -> _Known:
        month, known = self._month(), self._known.get(tenant)
        if known is None or known.month != month:
            known = self._known[tenant] = _Known(month)
        return known

    async def _admit(self, tenant: str, known: _Known, new: list[Pair]) -> None:
        try:
            async with self._database.within(tenant) as session:
                await store.admit_values(session, tenant, known.month, new, most=self._most_values)
                found = await store.known_values(session, tenant, known.month)
        except StoreUnavailable as error:
            # The call itself needs the ledger, which will say so; it must not fail of its labels.
            _log.warning("free_labels_not_checked", tenant=tenant, detail=error.detail)
            return
        known.values |= found
        known.is_full = len(known.values) >= self._most_values

    def _tell(self, tenant: str, known: _Known) -> None:
        """Count the call, and say once for each month and process of whom it is."""
        self._metrics.label_values_beyond()
        if known.is_full and not known.is_told:
            known.is_told = True
            _log.warning("free_labels_full", tenant=tenant, month=f"{known.month:%Y-%m}", most_values=self._most_values)
