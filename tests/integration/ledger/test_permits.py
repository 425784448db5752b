"""Calls of which it is certain only for a while that they may be made."""

import asyncio
import time

import pytest
from tollhouse_server.errors import CredentialsInvalid
from tollhouse_server.generation.attempts import Attempts
from tollhouse_server.ledger.ledger import Ledger
from tollhouse_server.ledger.terms import CallTerms, Reservation
from tollhouse_server.ledger.transaction import TickTransaction
from tollhouse_server.ledger.works import PermitLapsedError

from tests.drivers.ledger import LedgerProcess, LedgerView, ledger_process, settled, terms
from tests.drivers.postgres import TestDatabase

# The first commit with an attempt in it fails; a sequence remembers that across the roll-back.
FAILING_COMMIT = """
CREATE SEQUENCE commits;
CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    IF nextval('commits') = 1 THEN RAISE EXCEPTION 'once' USING ERRCODE = 'serialization_failure'; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON attempt DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION fail_once();
"""


@pytest.mark.parametrize("is_planned", [True, False])
async def test_nothing_is_admitted_when_the_permit_has_lapsed(
    process: LedgerProcess, view: LedgerView, is_planned: bool
) -> None:
    """Refused right before the commit, with nothing held; the same call is admitted when it is asked for anew."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    if is_planned:
        await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=5))
    asked = terms(cost_nanos=100)

    with pytest.raises(PermitLapsedError):
        await process.ledger.reserve(asked, timeout_seconds=5, sure_until=time.monotonic() - 0.001)

    assert await view.counter(limit) == (0, 0)
    await process.ledger.reserve(asked, timeout_seconds=5, sure_until=time.monotonic() + 60)
    assert await view.counter(limit) == (100, 0)


class Revoked:
    """A permit that is good for a moment, and then for ever or never again."""

    def __init__(self, *answers: float | Exception) -> None:
        self.answers = list(answers)

    async def sure_until(self) -> float:
        """Return or raise the next answer."""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_call_whose_permit_lapsed_while_it_waited_asks_again_and_is_admitted(
    process: LedgerProcess, view: LedgerView
) -> None:
    """Its process stood still, and it may call all the same: nobody hears of it."""
    now = time.monotonic()

    permit = Revoked(now - 1, now + 60)
    async with await Attempts(process.ledger).open(terms(), timeout_seconds=5, permit=permit) as attempt:
        attempt.refused("HTTP_400")

    assert await view.count("attempt") == 0
    assert [kind for kind, _ in await view.records()] == ["REFUSED"]


async def test_an_attempt_is_not_sent_when_its_caller_was_revoked_after_it_was_admitted(
    process: LedgerProcess, view: LedgerView
) -> None:
    """It is given back and booked as never sent."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    permit = Revoked(time.monotonic() + 0.5, CredentialsInvalid())

    with pytest.raises(CredentialsInvalid):
        async with await Attempts(SlowLedger(process.ledger)).open(terms(), timeout_seconds=5, permit=permit):  # type: ignore[arg-type]
            raise AssertionError

    assert await view.counter(limit) == (0, 0)
    assert [kind for kind, _ in await view.records()] == ["REFUSED"]


class SlowLedger:
    """A ledger whose verdict comes to its process only after that has stood still for a second."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.settle = ledger.settle

    async def reserve(self, asked: CallTerms, **limits: float) -> Reservation:
        """Reserve, and stand still."""
        reservation = await self._ledger.reserve(asked, **limits)
        time.sleep(0.6)  # noqa: ASYNC251 - the whole process stands still
        return reservation


async def test_a_call_that_asked_anew_keeps_what_it_got_when_the_tick_that_had_sent_it_back_is_repeated(
    view: LedgerView, fresh_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of that tick failed; what it finds of the call is not its own, and not to be given back."""
    limit = await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    await view.connection.execute(FAILING_COMMIT)
    asked, admitted, run = terms(cost_nanos=100), asyncio.Event(), TickTransaction.run

    async def repeated_late(transaction: TickTransaction) -> list[Reservation]:
        if any(work.verdict.done() for work in transaction._batch.reserves):
            await admitted.wait()
        return await run(transaction)

    async def ask_twice(process: LedgerProcess) -> Reservation:
        with pytest.raises(PermitLapsedError):
            await process.ledger.reserve(asked, timeout_seconds=10, sure_until=time.monotonic() - 0.001)
        reservation = await process.ledger.reserve(asked, timeout_seconds=10)
        admitted.set()
        return reservation

    monkeypatch.setattr(TickTransaction, "run", repeated_late)
    async with ledger_process(fresh_database.app_dsn, looks_first=True) as process:
        other, reservation = await asyncio.gather(
            process.ledger.reserve(terms(cost_nanos=10), timeout_seconds=10), ask_twice(process)
        )
        await process.ledger.drain()
        held = await view.counter(limit)
        await process.ledger.settle(reservation, settled(60))
        await process.ledger.release(other)

    assert held == (110, 0)
    assert sorted(await view.records()) == [("REFUSED", 0), ("SETTLED", 60)]


async def test_a_lane_that_hangs_holds_nobody_up(fresh_database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come later go by the other lane, one after the other, for as long as it hangs."""
    goes_on, hanging, run = asyncio.Event(), asyncio.Event(), TickTransaction.run

    async def first_hangs(transaction: TickTransaction) -> list[Reservation]:
        if not hanging.is_set():
            hanging.set()
            await goes_on.wait()
        return await run(transaction)

    monkeypatch.setattr(TickTransaction, "run", first_hangs)
    async with ledger_process(fresh_database.app_dsn) as process:
        first = asyncio.create_task(process.ledger.reserve(terms(), timeout_seconds=30))
        await hanging.wait()
        later = [await process.ledger.reserve(terms(), timeout_seconds=5) for _ in range(3)]
        is_first_waiting = not first.done()
        goes_on.set()
        for reservation in (*later, await first):
            await process.ledger.release(reservation)

    assert is_first_waiting
    assert len(later) == 3
