"""The attempts in flight that ask for more in a tick."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from tollhouse_server.errors import LimitExceeded, StoreUnavailable, TollhouseError
from tollhouse_server.ledger import store, verdicts
from tollhouse_server.ledger.rows import holds_json
from tollhouse_server.ledger.store import Look
from tollhouse_server.ledger.terms import LimitDefinition, Reservation
from tollhouse_server.ledger.verdicts import AppliedLimit
from tollhouse_server.ledger.windows import moment
from tollhouse_server.ledger.works import TopUpWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection


def limits_in_flight(work: TopUpWork, known: Sequence[LimitDefinition], *, now: datetime) -> list[AppliedLimit]:
    """Return the limits that an attempt holds on, with the counters on which it was reserved.

    Of a rolling limit what counts now counts, as long as the attempt's own minute is in it.
    """
    held = {hold.key.limit_id: hold.key for hold in work.reservation.holds}
    limits = []
    for limit in known:
        if limit.limit_id in held:
            then = verdicts.applied(limit, moment(held[limit.limit_id].window_start), now=now)
            counted = verdicts.applied(limit, now, now=now).counted
            limits.append(then._replace(counted=counted) if then.key in counted else then)
    return limits


class TopUps:
    """Gives verdicts on top-ups."""

    def __init__(
        self, connection: "Connection", found: Look, *, limits: Mapping[TopUpWork, Sequence[AppliedLimit]]
    ) -> None:
        self._connection = connection
        self._found = found
        self._limits = limits
        self._there: dict[int, Reservation] = {}
        self.grown: dict[TopUpWork, Reservation] = {}
        self.refused: dict[TopUpWork, TollhouseError] = {}

    async def judge(self, works: Sequence[TopUpWork]) -> None:
        """Grant or refuse, in the order given, and write what attempts hold now."""
        if not works:
            return
        keys = [(work.reservation.terms.scope.tenant_id, work.reservation.terms.attempt_id) for work in works]
        self._there = await store.load_attempts(self._connection, keys)
        for work in works:
            self._judge(work)
        if self.grown:
            await store.grow_attempts(
                self._connection, list({r.terms.attempt_id.int: r for r in self.grown.values()}.values())
            )

    def _judge(self, work: TopUpWork) -> None:
        attempt_id = work.reservation.terms.attempt_id.int
        there = self._there.get(attempt_id)
        if there is None:
            self.refused[work] = StoreUnavailable(detail="the attempt is no longer in flight: ended, or in suspense")
            return
        if there.top_ups > work.reservation.top_ups:
            # A commit in doubt has done it, or another top-up of the same attempt was faster; it holds what it holds.
            self.grown[work] = self._as_asked(work, there)
            return
        try:
            holds = verdicts.top_up(
                there.holds, work.more, limits=self._limits[work], counters=self._found.counters, at=self._found.now
            )
        except LimitExceeded as error:
            self.refused[work] = error
            return
        ceiling = there.terms.ceiling.plus(work.more)
        grown = there._replace(
            terms=there.terms._replace(ceiling=ceiling),
            holds=holds,
            holds_text=holds_json(holds),
            top_ups=there.top_ups + 1,
        )
        self._there[attempt_id] = grown
        self.grown[work] = self._as_asked(work, grown)

    @staticmethod
    def _as_asked(work: TopUpWork, grown: Reservation) -> Reservation:
        """Return what an attempt holds now with the terms of the caller: the row has only what it takes to end."""
        return grown._replace(terms=work.reservation.terms._replace(ceiling=grown.terms.ceiling))

    def tell(self) -> None:
        """Tell every caller his verdict. One who has gone loses nothing: the settlement finds what the row holds."""
        for work, error in self.refused.items():
            work.fail(error)
        for work, reservation in self.grown.items():
            work.admit(reservation)
