"""A call that does not fit a limit whole is sent with as much output as fits, or not at all."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from tollhouse_server.errors import InvalidRequest, LimitExceeded
from tollhouse_server.generation.calls import GenerationCall
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.simulator.client import SimulatorClient
from tollhouse_server.upstream.protocol import Method

from tests.drivers.generation import GenerationProcess, UpstreamAccount, call_of, models_of, served_with

FIRST, SECOND, _ = models_of("flash")
ASKED = 2000
SHORT_THINKING = {"thinkingConfig": {"thinkingBudget": 0}}


@dataclass(frozen=True, slots=True)
class Sent:
    """What one clamped call came to."""

    config: dict[str, Any]
    notice: dict[str, str]


async def tight(process: GenerationProcess, amount: int, metric: str = "OUTPUT_TOKENS", selector: str = "") -> int:
    """Put a limit on the tenant."""
    name = f"tight-{selector.rpartition('/')[2].replace('.', '-')}-{metric.lower().replace('_', '-')}"
    return await process.view.add_limit(name, "tenants/acme", metric, "TOTAL", amount, selector)


async def widen(process: GenerationProcess, limit_id: int, amount: int) -> None:
    """Give a limit another amount."""
    execute = process.view.connection.execute
    await execute("UPDATE usage_limit SET amount = $2 WHERE limit_id = $1", limit_id, amount)
    await execute("UPDATE epoch SET value = value + 1 WHERE topic = 'limits'")


def asking(config: dict[str, Any] | None = None, text: str = "How long is the bridge?") -> GenerationCall:
    """Build a call for 2,000 tokens of output, without thinking unless `config` says more."""
    return call_of(text, config={"maxOutputTokens": ASKED, **SHORT_THINKING, **(config or {})})


async def sent(process: GenerationProcess, simulator: SimulatorClient, call: GenerationCall) -> Sent:
    """Send a call; return what was sent upstream and what its caller was told."""
    await simulator.capture_requests(1)
    answer = await process.generate(call)
    (request,) = await simulator.requests()
    (notice,) = answer.outcome.notices
    assert notice.code == "MAX_OUTPUT_TOKENS_CLAMPED"
    return Sent(json.loads(request["body"])["generationConfig"], dict(notice.metadata))


async def test_a_call_that_fits_no_limit_whole_is_sent_with_the_output_that_fits(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """Upstream is told the bound, the caller both figures and the limit; the rest of his settings stay."""
    limit_id = await tight(process, 500)

    came_to = await sent(process, simulator, asking({"temperature": 0.5}))

    record = await process.record()
    assert came_to.config == {"maxOutputTokens": 500, "temperature": 0.5, **SHORT_THINKING}
    assert came_to.notice == {
        "requested": str(ASKED),
        "granted": "500",
        "limit": "tenants/acme/limits/tight--output-tokens",
    }
    assert await process.view.counter(limit_id) == (0, record.output_tokens)
    await process.assert_nothing_in_flight()


async def test_a_budget_grants_every_token_that_it_can_pay_for(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """The worst case of what is sent is within the budget, and within one token's price of it."""
    budget, nanos_per_token = 5_000_000, 3_750
    limit_id = await tight(process, budget, "COST")

    came_to = await sent(process, simulator, asking(text="[[full]]"))

    record = await process.record()
    assert budget - nanos_per_token < record.ceiling_nanos <= budget
    assert record.output_tokens == came_to.config["maxOutputTokens"] < ASKED
    assert await process.view.counter(limit_id) == (0, record.cost_nanos)


async def test_a_bound_that_the_caller_left_out_is_clamped_too(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """He is told how much he would have had."""
    await tight(process, 500)

    came_to = await sent(process, simulator, call_of(config=SHORT_THINKING))

    assert (came_to.config["maxOutputTokens"], came_to.notice["requested"]) == (500, "8192")


async def test_the_notice_names_what_the_caller_asked_for_whoever_lowered_it(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """Above the model's bound and above the limit: one notice, his own figure."""
    await tight(process, 500)

    came_to = await sent(process, simulator, asking({"maxOutputTokens": 10_000_000}))

    assert (came_to.notice["requested"], came_to.notice["granted"]) == ("10000000", "500")


@pytest.mark.parametrize(
    ("config", "least"),
    [
        ({}, 64),
        ({"maxOutputTokens": 10}, 10),
        ({"thinkingConfig": {"thinkingBudget": 300}}, 364),
        ({"thinkingConfig": {}}, 1_088),
        ({"thinkingConfig": {"thinkingLevel": "LOW"}}, 1_088),
        ({"candidateCount": 2}, 128),
    ],
    ids=["plain", "ten asked for", "thinking bounded", "thinking open", "thinking by level", "two candidates"],
)
async def test_less_than_a_useful_answer_is_refused(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount, config: dict[str, Any], least: int
) -> None:
    """Thinking is set aside first and stays as it was set; who asked for little gets it or nothing."""
    limit_id = await tight(process, least - 1)

    with pytest.raises(LimitExceeded) as raised:
        await process.generate(asking(config))
    sent_before = await served_with(simulator, account.secrets[0])
    await widen(process, limit_id, least)
    await process.generate(asking(config))

    record = await process.record()
    assert (raised.value.amount, raised.value.settled, sent_before) == (least - 1, 0, [])
    assert 0 < record.output_tokens <= least


async def test_candidates_share_the_room_evenly(process: GenerationProcess, simulator: SimulatorClient) -> None:
    """The bound is by candidate: all of them together stay within the limit."""
    await tight(process, 501)

    came_to = await sent(process, simulator, asking({"candidateCount": 3}, text="[[full]]"))

    assert came_to.config["maxOutputTokens"] == 167
    assert (await process.record()).output_tokens <= 501


async def test_a_clamp_never_squeezes_an_image_out(process: GenerationProcess, simulator: SimulatorClient) -> None:
    """Images count against maxOutputTokens: what is granted has room for all of them, or nothing is sent."""
    ten_images = 10 * 1_120
    limit_id = await tight(process, 2 * ten_images + 63)
    config = {"maxOutputTokens": 2 * ten_images}

    with pytest.raises(LimitExceeded):
        await process.generate(call_of("A toll house", tier="flash-image", config=config))
    await widen(process, limit_id, 2 * ten_images + 64)
    came_to = await sent(process, simulator, call_of("A toll house", tier="flash-image", config=config))

    assert came_to.config["maxOutputTokens"] == ten_images + 64
    assert (await process.record()).output_tokens > 1_000


async def test_what_has_no_output_is_never_made_smaller(process: GenerationProcess) -> None:
    """An embedding fits or it does not."""
    await tight(process, 1, "COST")
    body = {"requests": [{"content": {"parts": [{"text": "toll"}]}}]}

    with pytest.raises(LimitExceeded):
        await process.generate(call_of(method=Method.EMBED, tier="embedding", body=body))

    await process.assert_nothing_booked()


async def test_each_attempt_is_clamped_to_the_room_that_it_finds(
    process: GenerationProcess, simulator: SimulatorClient, account: UpstreamAccount
) -> None:
    """The first target refuses; the second is asked anew, for what its own limit has room for."""
    await tight(process, 600, selector=f"models/{FIRST}")
    await tight(process, 300, selector=f"models/{SECOND}")
    await simulator.add_fault("429", key=account.secrets[0], model=FIRST)
    await simulator.capture_requests(2)

    answer = await process.generate(asking())

    bounds = [json.loads(one["body"])["generationConfig"]["maxOutputTokens"] for one in await simulator.requests()]
    clamped, fallback = answer.outcome.notices
    assert bounds == [600, 300]
    assert (clamped.metadata["granted"], fallback.code) == ("300", "FALLBACK_USED")
    assert [record.kind for record in await process.records()] == [RecordKind.REFUSED, RecordKind.SETTLED]
    await process.assert_nothing_in_flight()


async def test_what_costs_more_than_was_held_is_booked_in_full_and_everyone_is_told(
    process: GenerationProcess, simulator: SimulatorClient
) -> None:
    """The upstream wrote more than it was allowed: record, counter, metric, alert and notice say so."""
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 500_000, "totalTokenCount": 500_005}
    candidate = {"content": {"parts": [{"text": "The"}], "role": "model"}, "index": 0, "finishReason": "STOP"}
    response = json.dumps({"candidates": [candidate], "usageMetadata": usage})
    await simulator.replay_next({"path": "", "request": {}, "status": 200, "response": response})

    answer = await process.generate(asking())

    record = await process.record()
    (notice,) = answer.outcome.notices
    metric = process.registry.get_sample_value("tollhouse_settled_above_hold_total", {"model": FIRST})
    assert (record.kind, record.output_tokens) == (RecordKind.SETTLED, 500_000)
    assert record.cost_nanos == answer.outcome.priced.cost_nanos > record.ceiling_nanos
    assert notice.code == "COST_ABOVE_HOLD"
    assert notice.metadata == {"held_nanos": str(record.ceiling_nanos), "cost_nanos": str(record.cost_nanos)}
    assert metric == 1
    assert await process.view.count("limit_alert WHERE kind = 'ABOVE_HOLD'") == 1
    await process.assert_nothing_in_flight()


@pytest.mark.parametrize("bound", [0, -5])
async def test_a_bound_below_one_is_refused_and_nothing_is_sent(
    process: GenerationProcess, simulator: SimulatorClient, bound: int
) -> None:
    """It is not taken for none, which would buy a long answer."""
    await simulator.capture_requests(1)

    with pytest.raises(InvalidRequest) as refused:
        await process.generate(asking({"maxOutputTokens": bound}))

    assert [one.path for one in refused.value.violations] == ["generation_config.max_output_tokens"]
    assert await simulator.requests() == []
