"""What it costs to price a call alone: its worst case before it is sent, and what it has used after its answer."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import orjson
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.ceiling import ModelBounds, ceiling
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.pricing.usage import from_generate_body

from tests.bench.loads import PROMPT
from tests.bench.recorder import Recorder
from tests.bench.rounds import ROUNDS

TIMES = 5000
MODEL = "gemini-3.5-flash"
BOUNDS = ModelBounds(input_token_limit=1_048_576, output_token_limit=65_536)
REQUEST = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}
ANSWER = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "1,280 metres."}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 310, "totalTokenCount": 322},
}


def cpu_us(work: Callable[[], object]) -> float:
    """Return the processor time of one time of many, in microseconds."""
    began_at = time.process_time()
    for _ in range(TIMES):
        work()
    return (time.process_time() - began_at) / TIMES * 1e6


def test_a_price(recorder: Recorder) -> None:
    """A text call of 430 bytes and its answer, beside reading the answer's JSON."""
    prices = PriceBook(1, packaged_prices().lists).terms(MODEL, datetime.now(UTC))
    size, written = len(orjson.dumps(REQUEST)), orjson.dumps(ANSWER)
    usage = from_generate_body(ANSWER)
    works: dict[str, Callable[[], object]] = {
        "ceiling": lambda: ceiling(prices, BOUNDS, REQUEST, request_bytes=size, output_cap_tokens=8192),
        "usage": lambda: from_generate_body(ANSWER),
        "price": lambda: price(prices, usage),
        "json_of_the_answer": lambda: orjson.loads(written),
    }

    for _ in range(ROUNDS):
        for name, work in works.items():
            recorder.record(f"price/{name}/cpu_us_per_call", cpu_us(work))

    assert price(prices, usage).cost_nanos > 0
