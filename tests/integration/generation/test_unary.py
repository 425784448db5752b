"""A unary call from the request to the receipt: what is booked, and what the caller is told."""

import asyncio
import json
from dataclasses import replace

import pytest
from tollhouse_server.errors import (
    DeadlineTooShort,
    DuplicateRequest,
    NoUpstreamKey,
    UpstreamOutcomeUnknown,
    UpstreamRefused,
)
from tollhouse_server.generation.calls import Answer, GenerationCall
from tollhouse_server.ledger.terms import RecordKind, SuspensePolicy
from tollhouse_server.simulator.client import SimulatorClient
from tollhouse_server.upstream.protocol import Method

from tests.drivers.bills import ListPriceBook, total_nanos
from tests.drivers.generation import (
    GenerationProcess,
    UpstreamAccount,
    account_at,
    call_of,
    generation_process,
    models_of,
    served_with,
    until_served,
)
from tests.drivers.postgres import TestDatabase

FLASH = models_of("flash")[0]


async def test_a_served_call_is_settled_at_what_its_answer_reports(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Receipt, record and the simulator's own log agree on attempt, tokens and money."""
    call = call_of("[[tokens:40]]")

    answer = await process.generate(call)

    (served,) = await served_with(simulator, account.secrets[0])
    record = await process.record()
    usage = answer.body["usageMetadata"]
    assert served.usage == usage
    assert str(record.attempt_id) == served.attempt_id == str(answer.outcome.attempt_id)
    assert (record.kind, record.outcome, record.request_id) == (RecordKind.SETTLED, "SERVED", call.request_id)
    assert record.input_tokens == usage["promptTokenCount"]
    assert record.output_tokens == usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
    assert record.cost_nanos == answer.outcome.priced.cost_nanos == total_nanos([ListPriceBook().bill(served)])
    assert record.response_id == answer.body["responseId"]
    assert (answer.outcome.route.model, answer.outcome.route.attempts, answer.outcome.notices) == (FLASH, 1, ())
    await process.assert_nothing_in_flight()


async def test_counting_tokens_is_booked_and_costs_nothing(process: GenerationProcess) -> None:
    """One request, no money."""
    answer = await process.generate(call_of(method=Method.COUNT_TOKENS))

    record = await process.record()
    assert answer.body["totalTokens"] > 0
    assert (record.kind, record.cost_nanos, record.ceiling_nanos) == (RecordKind.SETTLED, 0, 0)


async def test_a_request_id_that_was_served_is_not_sent_again(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The second time it is refused, and nothing is booked for it."""
    call = call_of()
    await process.generate(call)

    with pytest.raises(DuplicateRequest):
        await process.generate(call)

    assert len(await served_with(simulator, account.secrets[0])) == 1
    assert len(await process.records()) == 1
    await process.assert_nothing_in_flight()


async def test_an_answer_without_usage_goes_to_suspense_and_says_so(process: GenerationProcess) -> None:
    """The caller gets his answer; the ceiling stays booked until somebody looks into it."""
    answer = await process.generate(call_of("[[no-usage]]"))

    record = await process.assert_in_suspense("USAGE_MISSING")
    assert answer.body["candidates"]
    assert answer.outcome.usage is None
    assert answer.outcome.priced.cost_nanos == record.ceiling_nanos
    assert [notice.code for notice in answer.outcome.notices] == ["USAGE_ESTIMATED"]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("policy", SuspensePolicy)
async def test_without_usage_the_caller_is_told_what_the_record_says(
    fresh_database: TestDatabase, account: UpstreamAccount, policy: SuspensePolicy, *, streams: bool
) -> None:
    """Receipt and metric have the amount that the policy books in suspense, be it the ceiling, less, or nothing."""
    async with generation_process(fresh_database, account, policy=policy) as process:
        text = "[[tokens:40]] [[no-usage]]"
        call = call_of(text, method=Method.STREAM) if streams else call_of(text)
        answer = await (streamed(process, call) if streams else process.generate(call))
        record = await process.record()

    told = answer.outcome.priced.cost_nanos
    assert (record.kind, record.outcome) == (RecordKind.SUSPENSE, "USAGE_MISSING")
    assert told == record.cost_nanos
    assert (told == 0) == (policy is SuspensePolicy.VOID)
    assert "in suspense until it is reconciled" in answer.outcome.notices[0].message


async def streamed(process: GenerationProcess, call: GenerationCall) -> Answer:
    """Make a call as a stream and return what comes at its end."""
    *_, answer = [item async for item in process.streaming.stream(call)]
    assert isinstance(answer, Answer)
    return answer


async def test_an_output_bound_above_the_models_is_lowered_upstream_too(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """What was reserved is what is sent, and the caller is told both figures."""
    await simulator.capture_requests(1)

    answer = await process.generate(call_of(config={"maxOutputTokens": 10_000_000, "temperature": 0.5}))

    (notice,) = answer.outcome.notices
    granted = int(notice.metadata["granted"])
    (sent,) = await simulator.requests()
    assert (notice.code, notice.metadata["requested"]) == ("MAX_OUTPUT_TOKENS_CLAMPED", "10000000")
    assert 0 < granted < 10_000_000
    assert json.loads(sent["body"])["generationConfig"] == {"maxOutputTokens": granted, "temperature": 0.5}


async def test_a_callers_mistake_is_not_tried_elsewhere(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """400 is the request's own fault: one refused record, and Google's words."""
    await simulator.add_fault("400", key=account.secrets[0])

    with pytest.raises(UpstreamRefused) as raised:
        await process.generate(call_of())

    record = await process.record()
    assert (raised.value.http_status, raised.value.status) == (400, "INVALID_ARGUMENT")
    assert (record.kind, record.outcome, record.cost_nanos) == (RecordKind.REFUSED, "HTTP_400", 0)
    assert [fault["hits"] for fault in await simulator.faults()] == [1]
    await process.assert_nothing_in_flight()


@pytest.mark.parametrize("kind", ["reset", "garbage", "truncate"])
async def test_a_call_of_unknown_outcome_that_may_not_be_sent_anew_ends_in_suspense(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, kind: str
) -> None:
    """It was served there, so another target would be charged as well."""
    await simulator.add_fault(kind, key=account.secrets[0], count=1)

    with pytest.raises(UpstreamOutcomeUnknown) as raised:
        await process.generate(call_of(resend_unknown=False))

    record = await process.assert_in_suspense("BROKEN:")
    (served,) = await served_with(simulator, account.secrets[0])
    assert raised.value.attempt_id == str(record.attempt_id) == served.attempt_id


async def test_an_answer_that_never_comes_is_given_up_and_suspended(
    fresh_database: TestDatabase, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The upstream's own time is bounded, whatever the caller's deadline."""
    await simulator.add_fault("hang", key=account.secrets[0])

    async with generation_process(fresh_database, account, upstream_timeout_seconds=0.3) as process:
        with pytest.raises(UpstreamOutcomeUnknown):
            await process.generate(call_of(resend_unknown=False))

        await process.assert_in_suspense("BROKEN:no whole answer within")


async def test_an_answer_after_the_callers_deadline_is_still_settled(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """He may be gone; what Google charges is known exactly all the same."""
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=0.7)

    await process.generate(call_of(deadline_seconds=0.5))

    assert (await process.record()).kind == RecordKind.SETTLED
    await process.assert_nothing_in_flight()


async def test_a_call_whose_time_is_up_is_not_sent_and_holds_nothing(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Its request id stays free for another try."""
    call = call_of(deadline_seconds=0)

    with pytest.raises(DeadlineTooShort):
        await process.generate(call)

    await process.assert_nothing_booked()
    assert await served_with(simulator, account.secrets[0]) == []


@pytest.mark.parametrize("named", ["no keys", "keys not held"])
async def test_without_a_key_nothing_is_held(
    process: GenerationProcess, simulator: SimulatorClient, named: str
) -> None:
    """Whether the account has none or Vault did not give it."""
    bare, other = account_at(simulator.url, keys=0), account_at(simulator.url, "other")
    await process.use(bare if named == "no keys" else replace(other, secrets_are_held=False))

    with pytest.raises(NoUpstreamKey) as raised:
        await process.generate(call_of(model=FLASH))

    assert raised.value.model == FLASH
    await process.assert_nothing_booked()


async def test_an_accounts_keys_are_taken_in_turn(process: GenerationProcess, simulator: SimulatorClient) -> None:
    """Six calls over three keys: two each."""
    three = account_at(simulator.url, keys=3)
    await process.use(three)

    for _ in range(6):
        await process.generate(call_of())

    assert [len(await served_with(simulator, secret)) for secret in three.secrets] == [2, 2, 2]


async def test_keys_are_taken_in_turn_where_a_call_passes_another_account_first(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """How often other accounts were asked does not decide which key of this one is next."""
    out_of_quota, spare = account_at(simulator.url, "a", keys=1), account_at(simulator.url, "b", keys=2)
    await process.use(out_of_quota, spare)
    await simulator.add_fault("429", key=out_of_quota.secrets[0])

    for _ in range(4):
        await process.generate(call_of(model=FLASH))

    assert [len(await served_with(simulator, secret)) for secret in spare.secrets] == [2, 2]


async def test_a_caller_who_hangs_up_does_not_stop_the_settlement(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """Cancelling whoever waits leaves the call to run to its end."""
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=0.2)
    caller = asyncio.create_task(process.generate(call_of()))
    await until_served(simulator, account.secrets[0])

    caller.cancel()
    await process.calls.drain(10)

    assert caller.cancelled()
    assert (await process.record()).kind == RecordKind.SETTLED
    await process.assert_nothing_in_flight()


async def test_a_drain_suspends_the_call_that_does_not_end(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """A shutdown waits so long and no longer; the attempt is booked before it goes on."""
    await simulator.add_fault("hang", key=account.secrets[0])
    caller = asyncio.create_task(process.generate(call_of()))
    await until_served(simulator, account.secrets[0])

    await process.calls.drain(0.05)

    await process.assert_in_suspense("INTERRUPTED")
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_drain_waits_for_the_call_that_ends_in_time(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """What is under way gets the time it was given."""
    await simulator.add_fault("slow", key=account.secrets[0], delay_seconds=0.2)
    caller = asyncio.create_task(process.generate(call_of()))
    await until_served(simulator, account.secrets[0])

    await process.calls.drain(10)

    assert (await caller).body["candidates"]
    assert (await process.record()).kind == RecordKind.SETTLED
