"""The month report against prices x usage, worked out from the other side: the simulator's own log. Some 10 s."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tollhouse.admin.v1 import usage_reports_pb2 as reports
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.simulator.client import ServedCall, SimulatorClient

from tests.drivers.administration import administration, nanos_of
from tests.drivers.bills import Bill, ListPriceBook, total_nanos
from tests.drivers.callers import prompt
from tests.drivers.load import Caller, callers, share_out
from tests.drivers.stack import RunningStack, running_stack_in

CALLS = 1_000
CALLERS = 8
DEPARTMENT = "tenants/demo/departments/research"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc33"
    "0000000049454e44ae426082"
)
TEXT_TIERS = ("ultra", "pro", "flash", "flash-lite")
# Longer than a block of the simulator's implicit cache, so that it is cached from its second use on.
SHARED_BEGINNING = "The by-laws of the toll house, as amended. " * 450
LONG_CONTEXT = "All that was ever written down at the gate. " * 19_000
"""A little over 200,000 tokens: the prices of a long context hold."""

Work = g.GenerateContentRequest | g.EmbedContentRequest | g.CountTokensRequest


def text(dice: random.Random) -> Work:
    """Build a plain prompt, some of it outside ASCII."""
    return prompt(f"Vermerk №{dice.getrandbits(40)} über das Zollhaus " * dice.randint(1, 9), tier=text_tier(dice))


def text_tier(dice: random.Random) -> str:
    """Choose a tier that answers in text."""
    return dice.choice(TEXT_TIERS)


def media(dice: random.Random) -> Work:
    """Build a question about a picture, a sound or a document."""
    kind = dice.choice(("image/png", "audio/wav", "application/pdf"))
    sound = b"RIFF" + bytes(4) + b"WAVE" + bytes(dice.randint(100, 40_000))
    # On this model sound has a price of its own.
    request = prompt(f"What is in this? {dice.getrandbits(40)}", model="gemini-3.1-flash-lite")
    request.contents[0].parts.append(c.Part(inline_data=c.Blob(mime_type=kind, data=sound if "audio" in kind else PNG)))
    return request


def tools(dice: random.Random) -> Work:
    """Build a request that runs code at Google or asks for a function call."""
    at_google = c.Tool(code_execution=c.CodeExecution())
    own = c.Tool(function_declarations=[c.FunctionDeclaration(name="get_toll", description="The toll of a cart")])
    return prompt(f"Work it out: {dice.getrandbits(40)}", tier=text_tier(dice), tools=[dice.choice((at_google, own))])


def thinking(dice: random.Random) -> Work:
    """Build a request for much thinking."""
    thoughts = c.ThinkingConfig(thinking_level="HIGH", include_thoughts=True)
    config = c.GenerationConfig(thinking_config=thoughts, candidate_count=dice.randint(1, 2))
    return prompt(f"Think about {dice.getrandbits(40)}", tier=text_tier(dice), generation_config=config)


def cached(dice: random.Random) -> Work:
    """Build a prompt that begins like others."""
    return prompt(SHARED_BEGINNING + f"Paragraph {dice.getrandbits(40)}?", tier=text_tier(dice))


def another_service_tier(dice: random.Random) -> Work:
    """Build a prompt that pays more to be served sooner, or less to wait."""
    request = text(dice)
    request.extra.update({"serviceTier": dice.choice(("priority", "flex"))})
    return request


def blocked(dice: random.Random) -> Work:
    """Build a prompt that is read, charged and not answered."""
    return prompt(f"[[block:SAFETY]] {dice.getrandbits(40)}", tier=text_tier(dice))


def drawing(dice: random.Random) -> Work:
    """Build a request for one or two pictures."""
    size = c.ImageConfig(image_size=dice.choice(("512", "1K")))
    config = c.GenerationConfig(image_config=size)
    return prompt(f"[[images:{dice.randint(1, 2)}]] {dice.random()}", tier="flash-image", generation_config=config)


def embedding(dice: random.Random) -> Work:
    """Build a batch of texts and a picture to embed."""
    texts = [c.Part(text=f"entry {dice.getrandbits(40)} " * dice.randint(1, 30)) for _ in range(dice.randint(1, 4))]
    parts = [*texts, c.Part(inline_data=c.Blob(mime_type="image/png", data=PNG))]
    items = [g.EmbedContentItem(content=c.Content(parts=[part]), output_dimensionality=8) for part in parts]
    return g.EmbedContentRequest(tier="embedding", requests=items)


def counting(dice: random.Random) -> Work:
    """Build a request that only counts."""
    return g.CountTokensRequest(tier=text_tier(dice), contents=prompt(f"How long? {dice.random()}").contents)


def long_context(dice: random.Random) -> Work:
    """Build a prompt of more than 200,000 tokens."""
    return prompt(LONG_CONTEXT + str(dice.random()), tier="pro")


SHARES: dict[Callable[[random.Random], Work], int] = {
    text: 349,
    media: 125,
    tools: 125,
    thinking: 75,
    cached: 75,
    another_service_tier: 75,
    blocked: 25,
    drawing: 24,
    embedding: 75,
    counting: 50,
    long_context: 2,
}
"""How many calls of each kind; half of those that can be are streamed."""


def mixed_load(seed: int) -> list[Work]:
    """Build the calls, in an order that only the seed decides."""
    dice = random.Random(seed)
    kinds = [kind for kind, count in SHARES.items() for _ in range(count)]
    dice.shuffle(kinds)
    return [kind(dice) for kind in kinds]


async def send(caller: Caller, work: Work, outcomes: list[g.Outcome]) -> None:
    """Send a call, streaming every second time if it can."""
    if isinstance(work, g.GenerateContentRequest) and len(outcomes) % 2:
        outcomes.append(await caller.streamed(work))
    else:
        outcomes.append(await caller.unary(work))


def by_model_and_sku(served: list[ServedCall], bills: list[Bill]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Return (quantity, cost, calls) of each model and SKU."""
    quantities, nanos, calls = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for call, bill in zip(served, bills, strict=True):
        for sku, (quantity, cost) in bill.items():
            key = (call.model, sku.removesuffix("_long"))
            quantities[key] += quantity
            nanos[key] += cost
            calls[key] += 1
    return {key: (quantities[key], nanos[key], calls[key]) for key in quantities}


@pytest.fixture
def books(stack_directory: Path) -> Iterator[RunningStack]:
    """A server of its own: in its books and in the simulator's log is nothing but what the test sends."""
    with running_stack_in(stack_directory, workers=1) as stack:
        yield stack


async def test_the_month_report_equals_prices_times_usage_to_the_nano_dollar(books: RunningStack) -> None:
    """1,000 calls of every kind over all tiers that serve, against the simulator's log and the price book's figures."""
    outcomes: list[g.Outcome] = []
    work = mixed_load(seed=2)
    assert len(work) == CALLS

    async with callers(books, books.demo_api_key, CALLERS) as among:
        await share_out(work, among, lambda caller, one: send(caller, one, outcomes))
    with administration(books) as admin:
        report = admin.month_report(DEPARTMENT, reports.USAGE_DIMENSION_MODEL, reports.USAGE_DIMENSION_SKU)
    async with SimulatorClient(books.simulator) as simulator:
        served = await simulator.calls()

    book = ListPriceBook()
    bills = [book.bill(call) for call in served]
    lines = {
        (line.model, line.sku.removesuffix("_long")): (line.quantity, nanos_of(line.cost), line.record_count)
        for line in report.lines
        if line.quantity
    }
    assert len(served) == CALLS - SHARES[counting]
    assert report.totals.record_count == CALLS
    assert nanos_of(report.totals.cost) == total_nanos(bills)
    assert sum(nanos_of(line.cost) for line in report.lines) == total_nanos(bills)
    assert lines == by_model_and_sku(served, bills)
    assert report.totals.suspense_count == 0
    receipts = {outcome.receipt.attempt_id: nanos_of(outcome.cost) for outcome in outcomes}
    costs = {str(call.attempt_id): total_nanos([bill]) for call, bill in zip(served, bills, strict=True)}
    assert receipts == dict.fromkeys(receipts, 0) | costs
    assert_covers_every_price(bills, served)


def assert_covers_every_price(bills: list[Bill], served: list[ServedCall]) -> None:
    """The load must have been what it claims to be: each kind of price was charged at least once."""
    charged = {sku for bill in bills for sku in bill}
    assert charged >= {
        *("input_text", "input_image", "input_audio", "input_document"),
        *("cached_text", "output_text", "output_image", "thoughts"),
    }
    assert {call.service_tier for call in served} == {"standard", "priority", "flex"}
    assert any(call.usage.get("promptTokenCount", 0) > 200_000 for call in served)
    assert any(call.usage.get("toolUsePromptTokenCount") for call in served)
