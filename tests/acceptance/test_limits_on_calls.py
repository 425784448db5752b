"""What a calling service meets when a limit has too little room: a shorter answer, a refusal to obey, a cut stream."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import administration
from tests.drivers.callers import bearer, details_of, generation_stub, prompt
from tests.drivers.stack import RunningStack, running_stack_in

NO_THINKING = c.ThinkingConfig(thinking_budget=0)


def limited_department(
    stack: RunningStack,
    department: str,
    metric: "limits.LimitMetric.ValueType",
    window: "limits.LimitWindow.ValueType",
    count: int,
) -> str:
    """Make a department with one limit and return the key of a caller in it."""
    with administration(stack) as admin:
        key = admin.add_department(department)
        scope = f"tenants/demo/departments/{department}"
        admin.add_limit(department, scope, metric, window, limits.LimitAmount(units=count))
    return key


async def slow_down(stack: RunningStack) -> None:
    """Let the models write as fast as real ones."""
    async with SimulatorClient(stack.simulator) as simulator:
        await simulator.set_pace(tokens_per_second=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A call that was refused because the one call of its minute had been made."""

    key: str
    refused_at: datetime
    details: dict[str, Any]

    @property
    def wait(self) -> timedelta:
        """How long its caller was told to wait."""
        told: timedelta = self.details["RetryInfo"].retry_delay.ToTimedelta()
        return told


@pytest.fixture(scope="module")
def refusal(running_stack: RunningStack) -> Refusal:
    """Shared by the module's first test and its last: the wait, up to a minute, passes while the others run."""
    requests, minute = limits.LIMIT_METRIC_REQUESTS, limits.LIMIT_WINDOW_MINUTE
    key = limited_department(running_stack, "patient", requests, minute, 1)
    with generation_stub(running_stack) as stub:
        stub.GenerateContent(prompt("first"), metadata=bearer(key), timeout=20)
        with pytest.raises(grpc.RpcError) as raised:
            stub.GenerateContent(prompt("too soon"), metadata=bearer(key), timeout=20)
        # As google.rpc.RetryInfo has it: the delay counts from when the caller hears of it.
        refused_at = datetime.now(UTC)
    return Refusal(key=key, refused_at=refused_at, details={**details_of(raised.value)})


def test_a_refusal_says_which_limit_how_full_it_is_and_when_it_is_empty(refusal: Refusal) -> None:
    """The numbers are those of the minute."""
    state = refusal.details["LimitState"]

    resets_at = state.resets_at.ToDatetime(tzinfo=UTC)
    assert (state.limit, state.metric, state.window) == ("tenants/demo/limits/patient", "REQUESTS", "MINUTE")
    assert (state.amount, state.held, state.settled, state.requested) == (1, 0, 1, 1)
    assert resets_at.second == 0
    assert timedelta(0) < refusal.wait <= timedelta(seconds=60)
    assert abs(refusal.refused_at + refusal.wait - resets_at) < timedelta(seconds=2)


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_an_answer_is_made_shorter_where_the_limit_has_no_room_for_all(
    running_stack: RunningStack, streamed: bool
) -> None:
    """The caller is told what he asked for, what he got and why; the answer ends there."""
    department = f"brief-{'stream' if streamed else 'unary'}"
    output, total = limits.LIMIT_METRIC_OUTPUT_TOKENS, limits.LIMIT_WINDOW_TOTAL
    key = limited_department(running_stack, department, output, total, 300)
    config = c.GenerationConfig(max_output_tokens=2000, thinking_config=NO_THINKING)
    request = prompt("[[full]] a long story", generation_config=config)

    with generation_stub(running_stack) as stub:
        metadata = bearer(key)
        if streamed:
            messages = list(stub.StreamGenerateContent(request, metadata=metadata, timeout=20))
        else:
            messages = [stub.GenerateContent(request, metadata=metadata, timeout=20)]

    (notice,) = messages[-1].outcome.notices
    usage = messages[-1].outcome.usage
    assert notice.code == g.NOTICE_CODE_MAX_OUTPUT_TOKENS_CLAMPED
    assert dict(notice.metadata) == {
        "requested": "2000",
        "granted": "300",
        "limit": f"tenants/demo/limits/{department}",
    }
    assert usage.candidates_tokens == 300
    assert {one.finish_reason for message in messages for one in message.candidates if one.finish_reason} == {
        "MAX_TOKENS"
    }


def test_a_stream_held_for_in_steps_is_cut_when_its_budget_is_used_up(stack_directory: Path) -> None:
    """What came is the caller's; the status says which limit, how far he came and what is booked."""
    config = c.GenerationConfig(max_output_tokens=4000, thinking_config=NO_THINKING)
    request = prompt("[[tokens:3000]] a long story", generation_config=config, labels={"case": "cut"})
    messages: list[g.GenerateContentResponse] = []
    with running_stack_in(stack_directory, stream_step_tokens=512, workers=1) as stack, generation_stub(stack) as stub:
        asyncio.run(slow_down(stack))
        output, total = limits.LIMIT_METRIC_OUTPUT_TOKENS, limits.LIMIT_WINDOW_TOTAL
        key = limited_department(stack, "stepper", output, total, 1000)

        with pytest.raises(grpc.RpcError) as raised:
            messages.extend(stub.StreamGenerateContent(request, metadata=bearer(key), timeout=20))

        kinds = stack.records_labelled("case", "cut")
        (booked,) = stack.query("SELECT output_tokens, outcome FROM usage_record WHERE labels ->> 'case' = 'cut'")

    details: dict[str, Any] = {**details_of(raised.value)}
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (details["ErrorInfo"].reason, details["LimitState"].limit) == (
        "BUDGET_CUT_OFF",
        "tenants/demo/limits/stepper",
    )
    # What the stream held is used up; a repetition can be admitted at once only where 64 tokens are left.
    assert ("RetryInfo" in details) == (details["LimitState"].held <= 1000 - 64)
    told = int(details["ErrorInfo"].metadata["output_tokens"])
    assert messages[-1].usage_metadata.candidates_token_count == told
    assert (kinds, booked["outcome"]) == (["SETTLED"], "CUT_OFF")
    assert 500 < told <= booked["output_tokens"] <= 1000


def test_a_refused_call_is_admitted_when_its_caller_waits_as_told(
    running_stack: RunningStack, refusal: Refusal
) -> None:
    """RetryInfo is obeyed to the letter."""
    still = refusal.refused_at + refusal.wait - datetime.now(UTC)

    time.sleep(max(0.0, still.total_seconds()))
    with generation_stub(running_stack) as stub:
        answer = stub.GenerateContent(prompt("as told"), metadata=bearer(refusal.key), timeout=20)

    assert answer.candidates[0].finish_reason == "STOP"
