"""A company hosts a model of its own: added, priced, called, put behind a tier and shut down, with no new release."""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from uuid import uuid4

import grpc
import pytest
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.simulator.client import ServedCall, SimulatorClient

from tests.drivers.callers import bearer, details_of, generation_stub, prompt, reason_of, text_of
from tests.drivers.command_line import CommandLine, Company
from tests.drivers.stack import RunningStack

MODEL = "smollm2-135m"
FREE = f"""
[[prices]]
model = "{MODEL}"
effective_from = 2025-01-01
source = "a machine of our own"
input = "0"
cached = "0"
output = "0"
zero_prices = true
"""
EDGE = """
[[tiers]]
tier = "edge"
display_name = "Edge"
description = "On own machines."
targets = [{ model = "gemma-4-31b-it" }]
"""
_HEARD_SECONDS = 20.0


@pytest.fixture
def machine_room(running_stack: RunningStack, tollhouse: CommandLine, company: Company) -> str:
    """The simulator plays a server that has the model; an account of this company alone leads there."""

    async def start_serving() -> None:
        async with SimulatorClient(running_stack.simulator) as simulator:
            await simulator.add_model(MODEL, like="gemma-4-26b-a4b-it")

    asyncio.run(start_serving())
    account = f"room-{uuid4().hex[:8]}"
    tollhouse.ok("accounts", "create", account, "--upstream", "openai-compatible", "--tenant", company.tenant)
    tollhouse.ok("upstream-keys", "add", "first", "--account", account, stdin=f"key-of-{account}")
    return account


def ask(stack: RunningStack, key: str, **named: str) -> g.GenerateContentResponse:
    request = prompt("What is water?", generation_config=c.GenerationConfig(max_output_tokens=12), **named)
    with generation_stub(stack) as stub:
        answer: g.GenerateContentResponse = stub.GenerateContent(request, metadata=bearer(key), timeout=30)
    return answer


def outcome(stack: RunningStack, key: str, **named: str) -> tuple[str, ...]:
    """Return the route and the cost of a call, or why it is refused and what to use instead."""
    try:
        answer = ask(stack, key, **named)
    except grpc.RpcError as error:
        said = details_of(error)["ErrorInfo"].metadata  # type: ignore[attr-defined]
        return reason_of(error), said.get("successor", "")
    assert text_of(answer)
    assert 0 < answer.outcome.usage.candidates_tokens <= 12
    route, cost = answer.outcome.route, answer.outcome.cost
    return route.tier, route.model, f"{cost.units}.{cost.nanos:09}"


def until(expected: tuple[str, ...], read: Callable[[], tuple[str, ...]]) -> None:
    """Wait for a change to reach the worker that is asked: each hears of it within moments, on its own."""
    deadline = time.monotonic() + _HEARD_SECONDS
    while (found := read()) != expected:
        assert time.monotonic() < deadline, (found, expected)


def served_by(stack: RunningStack) -> list[ServedCall]:
    async def read() -> list[ServedCall]:
        async with SimulatorClient(stack.simulator) as simulator:
            return await simulator.calls(model=MODEL)

    return asyncio.run(read())


def test_a_company_hosts_a_model_of_its_own(
    running_stack: RunningStack, tollhouse: CommandLine, company: Company, machine_room: str
) -> None:
    """Unknown, then unpriced, then served free of charge by name, alias and tier, then shut down for its successor."""
    ask_for = partial(outcome, running_stack, company.key)
    assert ask_for(model=MODEL) == ("MODEL_UNKNOWN", "")

    limits = ("--input-tokens", "8192", "--output-tokens", "2048")
    tollhouse.ok("models", "add", MODEL, "--upstream", "openai-compatible", *limits, "--source", "our machine")
    tollhouse.ok("models", "alias", "add", "smol", MODEL)
    for name in (MODEL, "smol"):
        until(("MODEL_UNPRICED", ""), partial(ask_for, model=name))

    (tollhouse.directory / "free.toml").write_text(FREE)
    tollhouse.ok("prices", "import", str(tollhouse.directory / "free.toml"))
    for name in (MODEL, "smol"):
        until(("", MODEL, "0.000000000"), partial(ask_for, model=name))

    tollhouse.ok("catalogue", "import", "-", stdin=EDGE)
    tollhouse.ok("routes", "set-tier", "edge", MODEL)
    until(("edge", MODEL, "0.000000000"), partial(ask_for, tier="edge"))
    assert {call.method for call in served_by(running_stack)} == {"generateContent"}

    tollhouse.ok("models", "shut-down", MODEL, "--on", "now", "--successor", "gemma-4-31b-it", "--yes")
    for named in ({"model": MODEL}, {"model": "smol"}, {"tier": "edge"}):
        until(("MODEL_SHUT_DOWN", "gemma-4-31b-it"), partial(ask_for, **named))

    # A worker that was not asked may hear of it up to two seconds later.
    def advice() -> tuple[str, ...]:
        told = tollhouse("generate", "Hello", "--model", MODEL, key=company.key).stderr
        return ("use gemma-4-31b-it",) if "use gemma-4-31b-it" in told else (told,)

    until(("use gemma-4-31b-it",), advice)


def test_the_catalogue_is_administered_with_the_command_line(tollhouse: CommandLine, company: Company) -> None:
    """Previews change nothing, mistakes are told with what would be right, and a file goes round unchanged."""
    new = ("models", "add", "gemini-9-flash", "--upstream", "vertex", "--input-tokens", "1M", "--output-tokens", "64k")
    dated = ("--shutdown", "2031-01-01", "--successor", "gemini-3.8-flash")

    preview = tollhouse.json(*new, *dated, "--dry-run")
    nothing = tollhouse("catalogue", "show", "gemini-9-flash")
    unknown = tollhouse(*new, "--capability", "sing")
    wrong = tollhouse(*new, "--capability", "image-output")
    denied = tollhouse(*new, key=company.key)
    created = tollhouse.json(*new, *dated)
    changed = tollhouse.json("models", "update", "gemini-9-flash", "--clear", "successor", "--images", "3")
    exported = tollhouse.ok("catalogue", "export")
    again = tollhouse("catalogue", "import", "-", "--dry-run", stdin=exported)
    kept = tollhouse("models", "delete", "gemini-3.8-flash", "--yes")
    listed = tollhouse.json("catalogue", "list", "--origin", "edited")
    gone = tollhouse("models", "delete", "gemini-9-flash", "--yes")

    assert preview["after"]["inputTokenLimit"] == "1000000"
    assert nothing.returncode == 4
    assert unknown.returncode == 2
    assert "structured-output" in unknown.stderr
    assert (wrong.returncode, denied.returncode) == (5, 3)
    assert "model.images_per_answer: must be more than 0" in wrong.stderr
    assert (created["origin"], created["shutdownTime"]) == ("CATALOGUE_ORIGIN_EDITED", "2031-01-01T00:00:00Z")
    assert (changed["successor"], changed["imagesPerAnswer"], changed["etag"]) == ("", 3, "v2")
    assert "0 added, 0 changed" in again.stderr
    assert "is PACKAGED; it must be one that an administrator added" in kept.stderr
    assert "models/gemini-9-flash" in {one["name"] for one in listed}
    assert (kept.returncode, gone.returncode) == (5, 0)
    assert json.loads(tollhouse.ok("catalogue", "export", "-o", "json"))["etag"]
