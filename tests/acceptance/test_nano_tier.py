"""Tier nano through the whole product: an account of a server of one's own, a real model, its own price."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import pytest
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g

from tests.drivers.callers import bearer, generation_stub, prompt, reason_of, text_of
from tests.drivers.command_line import CommandLine, administrators
from tests.drivers.forks import Forks
from tests.drivers.nano import Nano, running_nano
from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack, running_stack_in

MODEL = "gemma-4-26b-a4b-it"
"""The name by which the tier knows its model; the server serves what it has under it."""

RATE = f"""
[[prices]]
model = "{MODEL}"
effective_from = 2025-01-01
source = "internal rate of the machine"
input = "0.50"
cached = "0.50"
output = "2.00"
"""
_HEARD_SECONDS = 20.0
_NANOS_PER_INPUT_TOKEN, _NANOS_PER_OUTPUT_TOKEN = 500, 2000


@dataclass(frozen=True, slots=True)
class Edge:
    """A Tollhouse and a model server that one of its accounts names."""

    stack: RunningStack
    tollhouse: CommandLine


@contextmanager
def nano_in_a_loop_of_its_own() -> Iterator[Nano]:
    """Run the model server for tests that are not coroutines."""
    with asyncio.Runner() as runner:
        server = running_nano(model=MODEL)
        yield runner.run(server.__aenter__())
        runner.run(server.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def edge(tollhouse_forks: Forks) -> Iterator[Edge]:
    """The account is made as an administrator makes it."""
    with servers_place("nano") as directory, nano_in_a_loop_of_its_own() as nano:
        addresses = json.dumps({"openai_compatible": nano.url})
        with running_stack_in(directory, upstream_addresses=addresses, workers=1) as stack:
            tollhouse = administrators(stack, directory, tollhouse_forks)
            account = ("accounts", "create", "machine-room", "--upstream", "openai-compatible")
            tollhouse.ok(*account, "--endpoint", "openai_compatible")
            tollhouse.ok("upstream-keys", "add", "first", "--account", "machine-room", stdin=nano.key)
            until(lambda: is_served(stack))
            yield Edge(stack, tollhouse)


def until(holds: Callable[[], bool]) -> None:
    """Wait for a change to reach the worker, which hears of it within moments."""
    deadline = time.monotonic() + _HEARD_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "the worker has not heard of the change"


def is_served(stack: RunningStack) -> bool:
    try:
        return ask(stack).HasField("outcome")
    except grpc.RpcError as error:
        if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION}:
            raise
        return False


def ask(stack: RunningStack) -> g.GenerateContentResponse:
    with generation_stub(stack) as stub:
        answer: g.GenerateContentResponse = stub.GenerateContent(
            question(), metadata=bearer(stack.demo_api_key), timeout=30
        )
    return answer


def question() -> g.GenerateContentRequest:
    return prompt("What is water?", tier="nano", generation_config=c.GenerationConfig(max_output_tokens=12))


def test_the_tier_answers_from_a_machine_of_ones_own_free_of_charge(edge: Edge) -> None:
    """The route says where it was served, the receipt that it cost nothing, and the usage what it used."""
    answer = ask(edge.stack)

    route, cost = answer.outcome.route, answer.outcome.cost
    assert text_of(answer)
    assert (route.tier, route.model) == ("nano", MODEL)
    assert (cost.units, cost.nanos) == (0, 0)
    assert 0 < answer.outcome.usage.candidates_tokens <= 12
    assert answer.outcome.usage.prompt_tokens == answer.usage_metadata.prompt_token_count
    assert "timings" in str(answer.extra["openai"])


def test_what_the_machine_cannot_do_is_refused_by_its_name(edge: Edge) -> None:
    """Nothing is sent and nothing is left out in silence."""
    request = question()
    request.generation_config.media_resolution = "MEDIA_RESOLUTION_LOW"

    with generation_stub(edge.stack) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.GenerateContent(request, metadata=bearer(edge.stack.demo_api_key), timeout=30)

    assert reason_of(raised.value) == "UPSTREAM_REFUSED"
    assert "generationConfig.mediaResolution" in str(raised.value.details())


def test_a_rate_of_ones_own_is_what_a_stream_is_booked_at(edge: Edge) -> None:
    """Own machines cost money too: the price is imported like any other, and the ledger has the sum."""
    rates = edge.tollhouse.directory / "rates.toml"
    rates.write_text(RATE)
    edge.tollhouse.ok("prices", "import", str(rates))
    until(lambda: ask(edge.stack).outcome.cost.nanos > 0)

    with generation_stub(edge.stack) as stub:
        metadata = bearer(edge.stack.demo_api_key)
        *content, last = stub.StreamGenerateContent(question(), metadata=metadata, timeout=30)

    usage, cost = last.outcome.usage, last.outcome.cost
    latest = "SELECT cost_nanos FROM usage_record WHERE model = $1 ORDER BY settled_at DESC LIMIT 1"
    [booked] = edge.stack.query(latest, MODEL)
    expected = usage.prompt_tokens * _NANOS_PER_INPUT_TOKEN + usage.candidates_tokens * _NANOS_PER_OUTPUT_TOKEN
    assert len(content) > 3
    assert (cost.units, cost.nanos) == (0, expected)
    assert booked["cost_nanos"] == expected > 0
