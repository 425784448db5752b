"""What looking through texts costs per KiB, beside one pass of `re` that finds nothing and a copy of the bytes."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from tollhouse_server.dlp.answers import restoring
from tollhouse_server.dlp.prompts import redacted_prompt
from tollhouse_server.dlp.redaction import Findings, Redactor
from tollhouse_server.dlp.tokens import Tokens
from tollhouse_server.unhurried import unhurried

from tests.bench.recorder import Recorder
from tests.unit.dlp.builders import EVERYTHING, STAFF, policy, screen

BY = screen(policy(*EVERYTHING, "custom:staff-number", patterns=[STAFF]))
ROUNDS = 7
BASELINE = re.compile(r"[0-9]{25}")
KIB = 64
TEXTS = {
    "clean": "The quick brown fox jumps over the lazy dog near the river, and everybody who saw it wondered why. ",
    "numbers": "On 2024-01-15 at 12:30 we sold 1,234 units for $56,789.00 in Q3 2025, up 4.5% from 2023; see item 17. ",
    "Chinese": "会议定于下周三上午十点在三号会议室举行，请各部门负责人准时参加。",
    "Chinese, full width": "２０２６年的会议定于下周三上午１０点在３号会议室举行，请各部门负责人准时参加。",
    "one value a KiB": "It was said that all of it would be ready on time, and so it was. " * 15
    + "Ask jane.doe@example.com. ",
    "dirty": "Jane Doe <jane.doe@example.com>, +49 30 901820, card 4111 1111 1111 1111, id 11010519491231002X; ",
    "worst known": "1234 5678 ",
}


def of_size(text: str) -> str:
    """Return a text repeated to 64 KiB."""
    count = KIB * 1024 // len(text.encode()) + 1
    return text * count


def best_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of the quickest of several rounds."""
    found = []
    for _ in range(ROUNDS):
        started_at = time.process_time()
        work()
        found.append(time.process_time() - started_at)
    return min(found)


def look(text: str) -> None:
    """Look through a text as a prompt is looked through."""
    for _ in Redactor(BY, Findings(), Tokens().token).steps(text, is_last=True):
        pass


@pytest.mark.parametrize("name", TEXTS)
def test_cost_per_kib(name: str, recorder: Recorder) -> None:
    """All detectors at once, and a pattern of the tenant's."""
    text = of_size(TEXTS[name])
    kib = len(text.encode()) / 1024

    cost = best_seconds(lambda: look(text)) / kib * 1e6
    floor = best_seconds(lambda: BASELINE.search(text)) / kib * 1e6
    copy = best_seconds(lambda: bytearray(text.encode())) / kib * 1e6

    found = {
        "us_per_kib": cost,
        "one_pass_of_re_us_per_kib": floor,
        "copy_us_per_kib": copy,
        "ratio_to_re": cost / floor,
    }
    recorder.record_all(f"dlp/{name.replace(' ', '_')}", found)
    assert cost > 0


def test_a_prompt_of_a_million_tokens_leaves_others_their_turn(recorder: Recorder) -> None:
    """The most processor time at a stretch while four MiB were looked through; nothing else can run in it."""
    text = (TEXTS["clean"] * 30 + TEXTS["dirty"] + TEXTS["numbers"] * 3) * 1200
    body = {"contents": [{"parts": [{"text": text}]}]}

    async def measured() -> tuple[float, float]:
        longest, is_over = 0.0, False

        async def others() -> None:
            nonlocal longest
            seen_at = time.thread_time()
            while not is_over:
                await asyncio.sleep(0)
                now = time.thread_time()
                longest, seen_at = max(longest, now - seen_at), now

        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        started_at = time.perf_counter()
        await unhurried(redacted_prompt(body, BY, Findings()))
        took, is_over = time.perf_counter() - started_at, True
        await task
        return took, longest

    took, longest = asyncio.run(measured())

    found = {"mib": len(text) / 2**20, "wall_ms": took * 1e3, "longest_stretch_ms": longest * 1e3}
    recorder.record_all("dlp_large/prompt", found)
    assert longest < took


def test_cost_per_chunk_of_a_stream(recorder: Recorder) -> None:
    """Twenty characters a chunk, judged and restored, beside none of it."""
    prompt = Tokens()
    prompt.token("EMAIL", "jane.doe@example.com")
    text = of_size(TEXTS["clean"])
    pieces = [text[at : at + 20] for at in range(0, len(text), 20)]
    bodies: list[dict[str, Any]] = [{"candidates": [{"content": {"parts": [{"text": one}]}}]} for one in pieces]

    def pass_on() -> None:
        redactor, stage = Redactor(BY, Findings(), Tokens().token), restoring(prompt)
        for piece, body in zip(pieces, bodies, strict=True):
            redactor.take(piece, is_last=False)
            for _ in stage.chunk(body):
                pass

    seconds = best_seconds(pass_on)

    recorder.record("dlp_stream/chunk_of_20_characters/cpu_us", seconds / len(pieces) * 1e6)
    assert seconds > 0
