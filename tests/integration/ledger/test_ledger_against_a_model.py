"""The real ledger, on PostgreSQL and in two processes, against the plain model of tests/drivers/ledger_model.py.

Hypothesis makes up what happens: calls, settlements, duplicates, changed limits, killed processes. After each step
every verdict, counter, attempt, record and alert must be the model's. These runs are the same each time; the fault
suite makes longer ones of runs that nobody has seen before.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tollhouse_server.errors import DuplicateRequest, LimitExceeded, RequestIdReused
from tollhouse_server.ledger.suspense_store import Resolution
from tollhouse_server.ledger.terms import (
    NOTHING,
    Amounts,
    CallTerms,
    Mode,
    RecordKind,
    Reservation,
    Shrunk,
)

from tests.drivers.ledger import terms
from tests.drivers.ledger_company import Company, LimitWish
from tests.drivers.ledger_model import Attempt, LedgerModel, Limit
from tests.drivers.ledger_wishes import AMOUNTS, Place, calls, limit_wishes, scope_of, share_of, smaller
from tests.drivers.postgres import TestDatabase
from tests.drivers.verification import findings_in

RUNS, STEPS = 16, 30
Result = TypeVar("Result")


class LedgerMachine(RuleBasedStateMachine):
    """Does the same to the ledger and to the model, and compares."""

    database: ClassVar[TestDatabase]

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self.model = LedgerModel()
        self.reservations: dict[UUID, list[Reservation]] = {}
        """Every attempt that was ever admitted, as its caller got it: at first, and after each top-up."""
        self.company = self.run(Company.open(self.database))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Carry out something on the one event loop of this machine."""
        return self._runner.run(work)

    def teardown(self) -> None:
        findings = self.run(findings_in(self.company.database, tenant=self.company.tenant))
        self.run(self.company.close())
        self._runner.close()
        assert findings == []

    # --- limits -----------------------------------------------------------------------------------------------------

    @initialize(wishes=st.lists(limit_wishes(), min_size=1, max_size=4))
    def begin_with_limits(self, wishes: list[LimitWish]) -> None:
        for wish in wishes:
            self.add_limit(wish)

    @precondition(lambda self: len(self.model.limits) < 8)
    @rule(wish=limit_wishes())
    def add_limit(self, wish: LimitWish) -> None:
        name = self.run(self.company.add_limit(wish))
        self.model.limits.append(
            Limit(
                name=name,
                scope=f"tenants/{self.company.tenant}{wish.scope}",
                metric=wish.metric,
                mode=wish.mode,
                selector=wish.selector,
                amount=wish.amount,
                overshoot=wish.overshoot,
                thresholds=wish.thresholds,
                is_rolling=wish.window == "ROLLING_10_MINUTES",
            )
        )

    @precondition(lambda self: self._living())
    @rule(choice=st.integers(0), amount=st.integers(0, 400))
    def change_a_limit(self, choice: int, amount: int) -> None:
        limit = self._pick(self._living(), choice)
        self.run(self.company.change_amount(limit.name, amount))
        self.model.change_amount(limit, amount + limit.increased)

    @precondition(lambda self: self._living())
    @rule(choice=st.integers(0), amount=st.integers(1, 100))
    def increase_a_limit(self, choice: int, amount: int) -> None:
        limit = self._pick(self._living(), choice)
        self.run(self.company.increase(limit.name, amount))
        limit.increased += amount
        self.model.change_amount(limit, limit.amount + amount)

    @precondition(lambda self: self._living())
    @rule(choice=st.integers(0))
    def delete_a_limit(self, choice: int) -> None:
        limit = self._pick(self._living(), choice)
        self.run(self.company.delete_limit(limit.name))
        limit.is_deleted = True

    # --- calls ------------------------------------------------------------------------------------------------------

    @rule(wishes=st.lists(calls(), min_size=1, max_size=4), process=st.integers(0, 1), clamped=st.booleans())
    def reserve(self, wishes: list[dict[str, Any]], process: int, clamped: bool) -> None:
        """Several calls at once, in one process: they are judged in the order in which they came."""
        self._ask([self._terms(**wish, clamped=clamped) for wish in wishes], process)

    @rule(wish=calls(), count=st.integers(2, 6))
    def the_same_call_in_both_processes(self, wish: dict[str, Any], count: int) -> None:
        """Whose comes first is chance; how many are admitted is not."""
        asked = [self._terms(**wish) for _ in range(count)]
        answers = self.run(
            self.company.all([self.company.reserve(each, number % 2) for number, each in enumerate(asked)])
        )
        for each, answer in sorted(zip(asked, answers, strict=True), key=lambda pair: isinstance(pair[1], Exception)):
            self._compare(each, answer)

    @precondition(lambda self: self.model.request_ids)
    @rule(choice=st.integers(0), is_other=st.booleans(), process=st.integers(0, 1))
    def repeat_a_request_id(self, choice: int, is_other: bool, process: int) -> None:
        original = self._pick(list(self.model.request_ids.values()), choice)
        fingerprint = b"other" if is_other else b"same"
        self._ask([self._copy(original, fingerprint=fingerprint)], process)

    @rule(wish=calls(), process=st.integers(0, 1))
    def use_one_request_id_twice_at_once(self, wish: dict[str, Any], process: int) -> None:
        first = self._terms(**wish | {"first": True})
        self._ask([first, self._copy(first)], process)

    @precondition(lambda self: self.model.attempts)
    @rule(choice=st.integers(0), more=AMOUNTS, process=st.integers(0, 1))
    def top_up(self, choice: int, more: Amounts, process: int) -> None:
        attempt = self._pick(list(self.model.attempts.values()), choice)
        attempt_id, more = attempt.terms.attempt_id, more._replace(requests=0, images=0)

        (answer,) = self.run(self.company.all([self.company.top_up(self.reservations[attempt_id][-1], more, process)]))

        full = self.model.top_up(attempt_id, more)
        if full:
            assert isinstance(answer, LimitExceeded), (answer, full)
            assert answer.limit.rsplit("/", 1)[1] in {limit.name for limit in full}
        else:
            assert isinstance(answer, Reservation), answer
            assert answer.terms.ceiling == attempt.ceiling
            self.reservations[attempt_id].append(answer)

    @precondition(lambda self: self.model.attempts)
    @rule(
        choices=st.lists(st.integers(0), min_size=1, max_size=3), share=st.integers(0, 150), process=st.integers(0, 1)
    )
    def settle(self, choices: list[int], share: int, process: int) -> None:
        """At a share of the ceiling: below, at or above; some of the attempts perhaps twice at once."""
        picked = [self._pick(list(self.model.attempts.values()), choice) for choice in choices]
        self._settle([(attempt, RecordKind.SETTLED, share_of(attempt.ceiling, share)) for attempt in picked], process)

    @precondition(lambda self: self.model.attempts)
    @rule(choice=st.integers(0), process=st.integers(0, 1))
    def release(self, choice: int, process: int) -> None:
        attempt = self._pick(list(self.model.attempts.values()), choice)
        self._settle([(attempt, RecordKind.REFUSED, NOTHING)], process)

    @precondition(lambda self: self.model.attempts)
    @rule(choice=st.integers(0), process=st.integers(0, 1))
    def lose_track_of_a_call(self, choice: int, process: int) -> None:
        attempt = self._pick(list(self.model.attempts.values()), choice)
        self._settle([(attempt, RecordKind.SUSPENSE, attempt.ceiling)], process)

    @precondition(lambda self: self.model.attempts)
    @rule(
        choice=st.integers(0),
        share=st.integers(0, 100),
        wishes=st.lists(calls(), max_size=3),
        process=st.integers(0, 1),
    )
    def settle_and_reserve_at_once(self, choice: int, share: int, wishes: list[dict[str, Any]], process: int) -> None:
        """What ends makes room for what begins in the same tick."""
        attempt = self._pick(list(self.model.attempts.values()), choice)
        actual, asked = share_of(attempt.ceiling, share), [self._terms(**wish) for wish in wishes]
        ended = self.company.settle(self._reservation(attempt), RecordKind.SETTLED, actual, process)

        _, *answers = self.run(self.company.all([ended, *(self.company.reserve(each, process) for each in asked)]))

        self.model.settle(attempt.terms.attempt_id, RecordKind.SETTLED, actual)
        for each, answer in zip(asked, answers, strict=True):
            self._compare(each, answer)

    @rule(wish=calls(), share=st.integers(0, 100))
    def teach_what_calls_use(self, wish: dict[str, Any], share: int) -> None:
        """Sixteen calls of a kind that use a share of their ceiling: elastic limits expect as much of the next."""
        asked = [self._terms(**wish) for _ in range(16)]
        self._ask(asked, 0)
        admitted = [self.model.attempts[each.attempt_id] for each in asked if each.attempt_id in self.model.attempts]
        self._settle([(attempt, RecordKind.SETTLED, share_of(attempt.ceiling, share)) for attempt in admitted], 0)

    # --- trouble ----------------------------------------------------------------------------------------------------

    @rule(process=st.integers(0, 1))
    def kill_a_process_and_sweep(self, process: int) -> None:
        """What it had in flight goes to suspense; its successor goes on."""
        epoch = self.company.epoch(process)
        orphans = [a for a in self.model.attempts if self.company.epoch_of[a] == epoch]

        self.run(self.company.kill(process))
        self.run(self.company.sweep(1 - process))

        self.model.suspend(orphans)

    @rule(process=st.integers(0, 1))
    def restart_a_process(self, process: int) -> None:
        """Nobody has missed it yet: its attempts are still in flight, and may be settled by another."""
        self.run(self.company.kill(process, is_missed=False))

    @precondition(lambda self: self.model.suspense)
    @rule(choice=st.integers(0), share=st.integers(0, 150), times=st.integers(1, 2), process=st.integers(0, 1))
    def settle_late(self, choice: int, share: int, times: int, process: int) -> None:
        attempt, _ = self._pick(list(self.model.suspense.values()), choice)
        self._settle([(attempt, RecordKind.SETTLED, share_of(attempt.ceiling, share))] * times, process)

    @precondition(lambda self: self.model.suspense)
    @rule(choice=st.integers(0), resolution=st.sampled_from(Resolution), share=st.integers(0, 150))
    def resolve(self, choice: int, resolution: Resolution, share: int) -> None:
        attempt, booked = self._pick(list(self.model.suspense.values()), choice)
        actual = share_of(attempt.ceiling, share) if resolution is Resolution.ACTUAL else None
        outcome = actual or {Resolution.ACCEPT: booked, Resolution.VOID: NOTHING}[resolution]

        self.run(self.company.resolve(attempt.terms.attempt_id, resolution, actual))

        self.model.resolve(attempt.terms.attempt_id, outcome)

    @precondition(lambda self: self.model.records)
    @rule(choice=st.integers(0), process=st.integers(0, 1))
    def settle_again_what_has_ended(self, choice: int, process: int) -> None:
        attempt_id = self._pick([attempt_id for attempt_id, _, _ in self.model.records], choice)
        if attempt_id not in self.model.suspense:
            settlement = self.company.settle(self.reservations[attempt_id][-1], RecordKind.SETTLED, NOTHING, process)
            self.run(settlement)

    # --- what must always be so -------------------------------------------------------------------------------------

    @invariant()
    def counters_are_the_models(self) -> None:
        expected = {limit.name: (limit.held, limit.expected, limit.settled) for limit in self.model.limits}
        assert self.run(self.company.counters()) == expected

    @invariant()
    def attempts_and_records_are_the_models(self) -> None:
        assert self.run(self.company.attempts()) == self.model.attempts.keys()
        assert self.run(self.company.records()) == self.model.records
        assert self.run(self.company.open_suspense()) == self.model.suspense.keys()

    @invariant()
    def alerts_are_the_models(self) -> None:
        limits = self.model.limits
        alerts = {(limit.name, *what): count for limit in limits for what, count in limit.alerts.items()}
        assert self.run(self.company.alerts()) == alerts

    @invariant()
    def strict_limits_hold(self) -> None:
        for limit in self.model.limits:
            if limit.mode is Mode.STRICT:
                assert limit.held + limit.settled <= limit.amount + limit.excuse, limit

    @invariant()
    def counters_are_the_sum_of_their_records_and_attempts(self) -> None:
        assert self.run(self.company.unconserved()) == []

    # --- means ------------------------------------------------------------------------------------------------------

    def _terms(self, *, place: Place, ceiling: Amounts, clamped: bool = False, **changes: Any) -> CallTerms:
        scope = scope_of(self.company.tenant, place)
        return terms(scope=scope, ceiling=ceiling, shrink=smaller(ceiling) if clamped else None, **changes)

    def _copy(self, original: CallTerms, fingerprint: bytes = b"same") -> CallTerms:
        return terms(
            scope=original.scope,
            ceiling=original.ceiling,
            request_id=original.request_id,
            fingerprint=fingerprint,
            tier=original.tier,
            model=original.model,
        )

    def _living(self) -> list[Limit]:
        return [limit for limit in self.model.limits if not limit.is_deleted]

    def _pick(self, among: Sequence[Result], choice: int) -> Result:
        return among[choice % len(among)]

    def _reservation(self, attempt: Attempt) -> Reservation:
        """Return what a caller settles with: whoever did not hear of a top-up has the reservation of before."""
        return self._pick(self.reservations[attempt.terms.attempt_id], len(self.model.records))

    def _settle(self, ends: list[tuple[Attempt, RecordKind, Amounts]], process: int) -> None:
        works = [
            self.company.settle(self._reservation(attempt), kind, actual, process) for attempt, kind, actual in ends
        ]
        assert self.run(self.company.all(works)) == [None] * len(works)
        for attempt, kind, actual in ends:
            self.model.settle(attempt.terms.attempt_id, kind, actual)

    def _ask(self, asked: Sequence[CallTerms], process: int) -> None:
        answers = self.run(self.company.all([self.company.reserve(each, process) for each in asked]))
        for each, answer in zip(asked, answers, strict=True):
            self._compare(each, answer)

    def _compare(self, asked: CallTerms, answer: object) -> None:
        """Judge as the model does, and hold the answer against it."""
        repeated = self.model.repeats(asked)
        if repeated == "REUSED":
            assert isinstance(answer, RequestIdReused), answer
        elif repeated is not None:
            assert isinstance(answer, DuplicateRequest), answer
            assert answer.state == repeated
        elif isinstance(answer, Reservation):
            self._compare_admission(asked, answer)
        else:
            assert isinstance(answer, LimitExceeded), answer
            self._compare_refusal(asked, answer)

    def _compare_admission(self, asked: CallTerms, answer: Reservation) -> None:
        granted = answer.terms.ceiling
        if answer.max_output_tokens is None:
            assert granted == asked.ceiling
        else:
            # Made smaller because it did not fit whole, and to just what fits.
            assert self.model.refusing(asked, asked.ceiling, asked.ceiling)
            assert asked.shrink is not None
            assert asked.shrink(*self.model.rooms(asked)) == Shrunk(granted, answer.max_output_tokens)
        assert self.model.refusing(asked, granted, answer.expected) == []
        self.model.admit(asked, granted, answer.expected)
        self.reservations[asked.attempt_id] = [answer]

    def _compare_refusal(self, asked: CallTerms, answer: LimitExceeded) -> None:
        # What an elastic limit expects of a call is learned: at the most its ceiling.
        refusing = self.model.refusing(asked, asked.ceiling, asked.ceiling)
        named = answer.limit.rsplit("/", 1)[1]
        assert named in {limit.name for limit in refusing}
        certain = self.model.refusing(asked, asked.ceiling, NOTHING)
        if certain:
            scopes = asked.scope.limit_scopes()
            limit = next(limit for limit in refusing if limit.name == named)
            assert scopes.index(limit.scope) <= scopes.index(certain[0].scope)
        if asked.shrink is not None and (shrunk := asked.shrink(*self.model.rooms(asked))) is not None:
            assert self.model.refusing(asked, shrunk.ceiling, shrunk.ceiling)


def run_against_the_model(database: TestDatabase, *, runs: int, are_new: bool) -> None:
    """Make runs of the machine: the same each time, or `are_new`, and then with the shortest way to what is found."""

    class Machine(LedgerMachine):
        pass

    Machine.database = database
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=STEPS,
            derandomize=not are_new,
            database=None,
            deadline=None,
            # Finding a shorter way to the same mistake can take minutes: only where there is time.
            phases=(Phase.generate, Phase.shrink) if are_new else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_the_ledger_does_what_the_model_does(module_database: TestDatabase) -> None:
    """Verdicts, counters, attempts, records and alerts agree after every step, whatever the steps are."""
    run_against_the_model(module_database, runs=RUNS, are_new=False)
