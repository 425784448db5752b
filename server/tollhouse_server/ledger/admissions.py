"""The calls that ask to be admitted in a tick: recognised, refused as repeated, judged, claimed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import asyncpg
import structlog

from tollhouse_server.errors import DuplicateRequest, LimitExceeded, RequestIdReused, StoreUnavailable, TollhouseError
from tollhouse_server.ledger import recovery_store, store, verdicts
from tollhouse_server.ledger.expectations import Expectations
from tollhouse_server.ledger.rows import holds_of
from tollhouse_server.ledger.store import AttemptKey, Look, RequestKey
from tollhouse_server.ledger.terms import RecordKind, Reservation, Shares
from tollhouse_server.ledger.verdicts import AppliedLimit
from tollhouse_server.ledger.works import ReserveWork

if TYPE_CHECKING:
    from tollhouse_server.ledger.store import Connection

_log = structlog.get_logger(__name__)


class Admissions:
    """Gives verdicts on reservations. `fresh` is to be written; `recognised` was, by a commit that was in doubt."""

    def __init__(
        self,
        connection: "Connection",
        found: Look,
        *,
        limits: Mapping[ReserveWork, Sequence[AppliedLimit]],
        expectations: Expectations,
        worker_epoch: int,
    ) -> None:
        self._connection = connection
        self._found = found
        self._limits = limits
        self._expectations = expectations
        self._worker_epoch = worker_epoch
        self._claims: dict[RequestKey, bytes] = dict(found.taken)
        self._repeated: list[ReserveWork] = []
        self.fresh: dict[ReserveWork, Reservation] = {}
        self.recognised: dict[ReserveWork, Reservation] = {}
        self.refused: dict[ReserveWork, TollhouseError] = {}
        self.for_nobody: list[Reservation] = []
        """What is held although nobody will use it: it must be given back."""

    async def recognise(self, reserves: Sequence[ReserveWork]) -> list[ReserveWork]:
        """Find what a commit in doubt has admitted after all; return the rest, which it has not."""
        uncertain = [work for work in reserves if work.uncertain]
        if not uncertain:
            return list(reserves)
        there = await recovery_store.recognise_attempts(self._connection, [_attempt_key(work) for work in uncertain])
        ended = await recovery_store.load_ended(self._connection, [_attempt_key(work) for work in uncertain])
        for work in uncertain:
            attempt_id = work.terms.attempt_id.int
            if attempt_id in there:
                found = there[attempt_id]
                # With the terms of the caller who asked for it: the row has only what it takes to end.
                self.recognised[work] = found._replace(terms=work.terms._replace(ceiling=found.terms.ceiling))
            elif attempt_id in ended:
                self.refused[work] = StoreUnavailable(detail="this worker was taken for dead before the call was sent")
                if ended[attempt_id].kind is RecordKind.SUSPENSE:
                    self.for_nobody.append(self._swept(work, ended[attempt_id].holds_text))
        return [work for work in reserves if work not in self.recognised and work not in self.refused]

    def _swept(self, work: ReserveWork, holds_text: str) -> Reservation:
        """Return the reservation of a call that went to suspense although it was never sent."""
        holds = holds_of(work.terms.scope.tenant_id, holds_text)
        return self._reservation(work, verdicts.Verdict(holds=holds, holds_text=holds_text), self._shares_of(work))

    def judge(self, reserves: Iterable[ReserveWork]) -> None:
        """Admit or refuse, in the order given. A request id is taken by the first call of it that is admitted."""
        for work in reserves:
            key = _request_key(work)
            if work.terms.first and key in self._claims:
                self._repeated.append(work)
                continue
            shares = self._shares_of(work)
            try:
                verdict = verdicts.decide(
                    work.terms, self._limits[work], self._found.counters, shares=shares, at=self._found.now
                )
            except LimitExceeded as error:
                self.refused[work] = error
                continue
            self.fresh[work] = self._reservation(work, verdict, shares)
            if work.terms.first:
                self._claims[key] = work.terms.fingerprint

    @property
    def all_are_admitted(self) -> bool:
        """Tell whether every call that was judged is admitted, whole or clamped."""
        return not self.refused and not self._repeated

    def _shares_of(self, work: ReserveWork) -> Shares:
        return self._expectations.of(work.terms)

    def _reservation(self, work: ReserveWork, verdict: verdicts.Verdict, shares: Shares) -> Reservation:
        return Reservation(
            terms=verdicts.granted(work.terms, verdict.shrunk),
            holds=verdict.holds,
            holds_text=verdict.holds_text,
            dispatched_at=self._found.now,
            worker_epoch=self._worker_epoch,
            shares=shares,
            max_output_tokens=verdict.shrunk.max_output_tokens if verdict.shrunk else None,
            clamped_by=verdict.clamped_by,
        )

    async def refuse_repeated(self) -> None:
        """Refuse calls whose request id is taken, each with the state of the call that took it. Run it unlocked."""
        if not self._repeated:
            return
        try:
            calls = await store.claimed_calls(self._connection, [_request_id(work) for work in self._repeated])
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # What is committed is committed: those who were admitted must hear of it, whatever this answer was.
            _log.warning("state_of_call_unknown", error=type(error).__name__)
            calls = {}
        for work in self._repeated:
            claimed = calls.get(_request_key(work))
            request_id = str(work.terms.request_id)
            if claimed is not None and claimed.fingerprint != work.terms.fingerprint:
                self.refused[work] = RequestIdReused(request_id=request_id)
            else:
                self.refused[work] = DuplicateRequest(
                    request_id=request_id, state=claimed.state if claimed else "UNKNOWN"
                )

    def tell(self) -> None:
        """Tell every caller his verdict; what finds nobody is to be given back."""
        for work, error in self.refused.items():
            work.fail(error)
        for work, reservation in (self.recognised | self.fresh).items():
            if not work.is_admitted and not work.admit(reservation):
                self.for_nobody.append(reservation)


def _attempt_key(work: ReserveWork) -> AttemptKey:
    return (work.terms.scope.tenant_id, work.terms.attempt_id)


def _request_key(work: ReserveWork) -> RequestKey:
    return (work.terms.scope.tenant_id, work.terms.request_id.int)


def _request_id(work: ReserveWork) -> AttemptKey:
    return (work.terms.scope.tenant_id, work.terms.request_id)
