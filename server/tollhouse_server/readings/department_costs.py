"""What departments cost this month, kept up to date by what was booked since the last time."""

import heapq
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.readings import cost_store


class DepartmentCosts:
    """The costs as of the last watermark: a round reads what the last 15 seconds have brought, not the month."""

    def __init__(self) -> None:
        self._starts: dict[str, datetime] = {}
        self._nanos: dict[tuple[str, str], int] = {}
        self._until: datetime | None = None

    async def refresh(self, session: AsyncSession, until: datetime) -> None:
        """Bring the costs up to `until`, a moment before which no record will appear any more."""
        starts = await cost_store.month_starts(session, until)
        # New tenants, and those whose month has turned.
        anew = {tenant: start for tenant, start in starts.items() if self._starts.get(tenant) != start}
        kept = [tenant for tenant in starts if tenant not in anew]
        nanos = {place: spent for place, spent in self._nanos.items() if place[0] in starts and place[0] not in anew}
        if self._until is not None and kept:
            for place, added in (await cost_store.costs_between(session, kept, self._until, until)).items():
                nanos[place] = nanos.get(place, 0) + added
        if anew:
            nanos.update(await cost_store.costs_since_months(session, anew, until))
        # At the end: what fails above is read again from where it was.
        self._nanos = nanos
        self._starts, self._until = starts, until

    def dearest(self, most: int) -> tuple[dict[tuple[str, str], int], int]:
        """Return the `most` departments with the highest costs, and what all others cost together."""
        # Chosen here: all are in memory, and to choose in SQL the whole month would have to be summed each time.
        chosen = dict(heapq.nlargest(most, self._nanos.items(), key=lambda item: (item[1], item[0])))
        return chosen, sum(self._nanos.values()) - sum(chosen.values())
