"""From one target to the next: every attempt is booked, whatever became of it."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tollhouse_server.errors import (
    CredentialsInvalid,
    DuplicateRequest,
    NoUpstreamKey,
    UpstreamExhausted,
    UpstreamOutcomeUnknown,
    UpstreamUnavailable,
)
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.generation import (
    NOBODY_LISTENS,
    GenerationProcess,
    UpstreamAccount,
    account_at,
    call_of,
    models_of,
    served_with,
)

FIRST, SECOND, THIRD = models_of("flash")


@asynccontextmanager
async def busy_after(seconds: float) -> AsyncIterator[str]:
    """Serve an upstream that takes its time to refuse: the simulator refuses at once."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(seconds)
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("kind", ["429", "500", "503"])
async def test_a_refused_call_is_served_by_the_next_target(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, kind: str
) -> None:
    """Each attempt is a record of its own under one request id, and the caller is told."""
    await simulator.add_fault(kind, key=account.secrets[0], model=FIRST)
    call = call_of()

    answer = await process.generate(call)

    refused, settled = await process.records()
    (served,) = await served_with(simulator, account.secrets[0])
    (notice,) = answer.outcome.notices
    assert (refused.kind, refused.outcome, refused.model) == (RecordKind.REFUSED, f"HTTP_{kind}", FIRST)
    assert (refused.cost_nanos, refused.input_tokens, refused.output_tokens) == (0, 0, 0)
    assert (settled.kind, settled.model, str(settled.attempt_id)) == (RecordKind.SETTLED, SECOND, served.attempt_id)
    assert refused.request_id == settled.request_id == call.request_id
    assert refused.attempt_id != settled.attempt_id
    assert (notice.code, answer.outcome.route.attempts) == ("FALLBACK_USED", 2)
    assert (answer.outcome.route.model, answer.outcome.attempt_id) == (SECOND, settled.attempt_id)
    await process.assert_nothing_in_flight()


async def test_a_key_that_is_refused_while_its_call_is_reserved_costs_the_call_nothing(
    process: GenerationProcess,
) -> None:
    """The call has its key in hand; that no other is left must not end it between its booking and its sending."""
    view = process.view.connection
    async with view.transaction():
        await view.execute("LOCK TABLE attempt")
        serving = asyncio.create_task(process.generate(call_of()))
        async with asyncio.timeout(10):
            while not await view.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        process.key_watch.refused_keys.add(("main", "key-0"))

    await serving

    assert (await process.record()).kind == RecordKind.SETTLED
    await process.assert_nothing_in_flight()


async def test_a_call_that_could_not_be_sent_is_served_by_the_next_account(
    process: GenerationProcess, account: UpstreamAccount
) -> None:
    """Nobody listens at the first account's address."""
    await process.use(account_at(NOBODY_LISTENS, "closed"), account)

    answer = await process.generate(call_of(model=FIRST))

    unsent, settled = await process.records()
    assert (unsent.kind, unsent.outcome, unsent.account_id) == (RecordKind.REFUSED, "NOT_SENT", "closed")
    assert (settled.kind, settled.account_id) == (RecordKind.SETTLED, "main")
    assert answer.outcome.route.account_id == "main"
    await process.assert_nothing_in_flight()


async def test_the_request_id_is_claimed_once_and_stands_for_the_latest_attempt(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Further attempts take it over, so that a repetition is told how the call really stands."""
    await simulator.add_fault("500", key=account.secrets[0], model=FIRST)
    await simulator.add_fault("500", key=account.secrets[0], model=SECOND)
    call = call_of()

    await process.generate(call)
    with pytest.raises(DuplicateRequest) as repeated:
        await process.generate(call)

    *_, last = records = await process.records()
    claims = await process.view.connection.fetch("SELECT request_id, attempt_id FROM request_key")
    assert [record.model for record in records] == [FIRST, SECOND, THIRD]
    assert [tuple(claim) for claim in claims] == [(call.request_id, last.attempt_id)]
    assert repeated.value.state == "SETTLED"


async def test_an_unknown_outcome_ends_a_call_that_may_not_be_sent_anew(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The third target could have served it, at the risk of a second charge."""
    await simulator.add_fault("503", key=account.secrets[0], model=FIRST)
    await simulator.add_fault("reset", key=account.secrets[0], model=SECOND)

    with pytest.raises(UpstreamOutcomeUnknown) as raised:
        await process.generate(call_of(resend_unknown=False))

    refused, suspended = await process.records()
    assert (refused.kind, suspended.kind) == (RecordKind.REFUSED, RecordKind.SUSPENSE)
    assert raised.value.attempt_id == str(suspended.attempt_id)
    assert len(await served_with(simulator, account.secrets[0])) == 1
    await process.assert_nothing_in_flight()


@pytest.mark.parametrize("kind", ["reset", "garbage", "truncate"])
async def test_after_an_unknown_outcome_another_target_serves_the_call_and_both_are_booked(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, kind: str
) -> None:
    """The first attempt stays in suspense at its ceiling; the caller is told of it."""
    await simulator.add_fault(kind, key=account.secrets[0], model=FIRST)

    answer = await process.generate(call_of())

    suspended, settled = await process.records()
    first, second = await served_with(simulator, account.secrets[0])
    assert (suspended.kind, suspended.cost_nanos) == (RecordKind.SUSPENSE, suspended.ceiling_nanos)
    assert (settled.kind, settled.model) == (RecordKind.SETTLED, SECOND)
    assert [str(suspended.attempt_id), str(settled.attempt_id)] == [first.attempt_id, second.attempt_id]
    assert [tried.outcome for tried in answer.outcome.route.tried] == ["UNKNOWN", "ANSWERED"]
    assert [notice.code for notice in answer.outcome.notices] == ["FALLBACK_USED", "RETRIED_AFTER_UNKNOWN_OUTCOME"]
    assert answer.outcome.notices[1].metadata == {"attempt_id": str(suspended.attempt_id)}
    await process.assert_nothing_in_flight()


async def test_a_call_of_which_every_attempt_is_unknown_says_so(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """It may have been charged as often as it was sent."""
    await simulator.add_fault("reset", key=account.secrets[0])

    with pytest.raises(UpstreamOutcomeUnknown):
        await process.generate(call_of())

    assert [record.kind for record in await process.records()] == [RecordKind.SUSPENSE] * 3
    await process.assert_nothing_in_flight()


class RevokedAfterFirst:
    """A permit that is good for one attempt."""

    def __init__(self) -> None:
        self.was_asked = False

    async def sure_until(self) -> float:
        """Say for ever, and then never again."""
        if self.was_asked:
            raise CredentialsInvalid
        self.was_asked = True
        return math.inf


async def test_whoever_may_not_try_again_after_an_unknown_outcome_is_told_of_that(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """What stands against another attempt would let him think that nothing was sent."""
    await simulator.add_fault("reset", key=account.secrets[0], model=FIRST)

    with pytest.raises(UpstreamOutcomeUnknown) as raised:
        await process.generate(call_of(permit=RevokedAfterFirst()))

    suspended = await process.assert_in_suspense("BROKEN:")
    assert raised.value.attempt_id == str(suspended.attempt_id)


async def test_a_target_that_keeps_silent_is_left_for_another(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The caller's time is not spent on the first one alone."""
    await simulator.add_fault("hang", key=account.secrets[0], model=FIRST, served=False)

    answer = await process.generate(call_of(deadline_seconds=6.0))

    suspended, settled = await process.records()
    assert (suspended.kind, settled.kind, settled.model) == (RecordKind.SUSPENSE, RecordKind.SETTLED, SECOND)
    assert answer.outcome.route.model == SECOND


async def test_a_key_that_was_refused_is_left_for_another_of_its_account(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """Only the key is bad; the account and its model are not. The last key goes out of use as the first did."""
    account = account_at(simulator.url, keys=2)
    await process.use(account)
    await simulator.add_fault("403", key=account.secrets[1])

    await process.generate(call_of(model=FIRST))
    await simulator.add_fault("403", key=account.secrets[0])
    with pytest.raises(UpstreamUnavailable):
        await process.generate(call_of(model=FIRST))
    with pytest.raises(NoUpstreamKey):
        await process.generate(call_of(model=FIRST))

    assert [record.outcome for record in await process.records()] == ["HTTP_403", "SERVED", "HTTP_403"]
    assert process.key_watch.refused_keys == {("main", "key-0"), ("main", "key-1")}


async def test_a_call_is_tried_no_more_often_than_allowed(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Six targets, three attempts."""
    other = account_at(simulator.url, "other")
    await process.use(account, other)
    for secret in (*account.secrets, *other.secrets):
        await simulator.add_fault("500", key=secret)

    with pytest.raises(UpstreamUnavailable) as raised:
        await process.generate(call_of())

    records = await process.records()
    assert (raised.value.attempts, raised.value.last_error) == (3, "HTTP 500")
    assert [record.model for record in records] == [FIRST, FIRST, SECOND]
    assert {record.account_id for record in records[:2]} == {"main", "other"}
    assert {record.kind for record in records} == {RecordKind.REFUSED}
    await process.assert_nothing_in_flight()


async def test_targets_that_are_all_out_of_quota_name_the_shortest_wait(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """What Google's RetryInfo says, over all attempts."""
    for model, seconds in ((FIRST, 30), (SECOND, 7), (THIRD, 20)):
        await simulator.add_fault("429", key=account.secrets[0], model=model, retry_delay_seconds=seconds)

    with pytest.raises(UpstreamExhausted) as raised:
        await process.generate(call_of())

    assert raised.value.retry_after_seconds == 7
    assert len(await process.records()) == 3
    await process.assert_nothing_in_flight()


async def test_without_leave_to_fall_back_no_other_model_is_asked(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The caller wants this model or none."""
    await simulator.add_fault("503", key=account.secrets[0], model=FIRST)

    with pytest.raises(UpstreamUnavailable):
        await process.generate(call_of(allow_fallback=False))

    assert (await process.record()).model == FIRST


async def test_a_call_waits_for_its_turn_among_further_attempts(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Other calls pay for its next attempt, and it has the time; nothing is held meanwhile."""
    while process.retries.may_retry():
        pass
    for _ in range(5):
        process.retries.note_call()
    await simulator.add_fault("503", key=account.secrets[0], model=FIRST)
    serving = asyncio.create_task(process.generate(call_of()))
    async with asyncio.timeout(10):
        while not await process.records():  # noqa: ASYNC110 - another process; there is no event for it
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    waits = not serving.done()
    await process.assert_nothing_in_flight()

    for _ in range(10):
        process.retries.note_call()
    answer = await serving

    assert waits
    assert answer.outcome.route.model == SECOND


async def test_a_call_is_told_of_its_failure_at_once_where_its_turn_would_come_too_late(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Hardly anybody calls, so nobody will pay for another attempt."""
    while process.retries.may_retry():
        pass
    await simulator.add_fault("503", key=account.secrets[0], model=FIRST)

    async with asyncio.timeout(3):
        with pytest.raises(UpstreamUnavailable):
            await process.generate(call_of(deadline_seconds=8))

    assert len(await process.records()) == 1


async def test_no_further_target_is_asked_when_the_time_is_up(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The caller is told what the attempt met; nothing else is reserved for him."""
    async with busy_after(1.1) as address:
        await process.use(account_at(address, "busy"), account)

        with pytest.raises(UpstreamUnavailable) as raised:
            await process.generate(call_of(model=FIRST, deadline_seconds=1.0))

    assert (raised.value.attempts, raised.value.last_error) == (1, "HTTP 503")
    assert (await process.record()).account_id == "busy"
    assert await served_with(simulator, account.secrets[0]) == []


async def test_an_account_without_a_key_is_passed_over(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Another account of the same rank answers, on the call's first attempt."""
    await process.use(account_at(simulator.url, "bare", keys=0), account)
    call = call_of(model=FIRST)

    answer = await process.generate(call)

    record = await process.record()
    assert (record.account_id, answer.outcome.route.attempts) == ("main", 1)
    assert await process.view.count("request_key") == 1
    assert answer.outcome.notices == ()
