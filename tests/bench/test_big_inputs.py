"""What large prompts and large answers take: memory of the worker, its event loop, and the patience of other tenants.

Memory is the worker's most (VmHWM, reset before each round) beyond what it had right before, and beyond its least in
the whole bench, by the bytes that came in or went out; `kept_mb` is what it has more than that afterwards. The loop's
longest block is the longest wait for a health check, which the worker answers from it.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from tests.bench.big_calls import Order, Seen
from tests.bench.canned_gemini import Manner
from tests.bench.governed import Governed, governed
from tests.bench.loads import Canned, canned, grpc_load, line_of, send, started
from tests.bench.recorder import Recorder
from tests.bench.rounds import SECONDS, TRANSPORT, in_turns
from tests.drivers.callers import bearer
from tests.drivers.command_line import CommandLine, administrators

CALLS = (1, 4)
SMALL_CALLERS = 4
_MEGABYTE = 1_000_000
_RESET_PEAK = "5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is large. `payload_bytes` are those of the caller's message, or of the pictures that he gets."""

    media_bytes: int = 0
    text_bytes: int = 0
    picture_bytes: int = 0
    pictures: int = 0

    @property
    def payload_bytes(self) -> int:
        """How much it is, as bytes and not as base64."""
        return self.media_bytes + self.text_bytes + self.picture_bytes * self.pictures


CASES = {
    "media_in_20_mb": Case(media_bytes=20 * _MEGABYTE),
    "text_in_1m_tokens": Case(text_bytes=4 * _MEGABYTE),
    "pictures_out_3x7_mb": Case(picture_bytes=7 * _MEGABYTE, pictures=3),
}
POLICIES: Mapping[str, Sequence[Sequence[str]]] = {
    "plain": (),
    "guarded": (("data-policies", "set", "--rule", "email,payment@prompt=mask", "--rule", "email@answer=mask"),),
    "kept": (("content", "set-policy", "--keep", "prompts-and-answers", "--retention-days", "7"),),
}


@dataclass(slots=True)
class _Big:
    """A running server, the tenants that call it, and who sends the large calls."""

    running: Governed
    upstream: Canned
    caller: asyncio.subprocess.Process
    keys: Mapping[str, str]
    rest_bytes: int = 0
    seen: dict[str, float] = field(default_factory=dict)

    @property
    def worker(self) -> Path:
        return Path(f"/proc/{self.running.workers[0]}")

    def memory_bytes(self, name: str) -> int:
        """Return a figure of the worker's status: VmRSS or VmHWM."""
        line = next(one for one in (self.worker / "status").read_text().splitlines() if one.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024

    async def send(self, case: Case, key: str, *, calls: int, seconds: float = 0.0) -> Seen:
        """Send large calls."""
        order = Order(
            target=self.running.stack.grpc,
            metadata=dict(bearer(key)),
            calls=calls,
            media_bytes=case.media_bytes,
            text_bytes=case.text_bytes,
            seconds=seconds,
        )
        assert self.caller.stdin is not None
        self.caller.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        found = Seen(**json.loads(await asyncio.wait_for(line_of(self.caller), seconds + 120)))
        assert found.answer_bytes > case.picture_bytes * case.pictures
        return found

    async def small_p99_ms(self) -> float:
        """Return the 99th percentile of another tenant's small calls."""
        load = grpc_load(self.running.stack.grpc, self.keys["other"], callers=SMALL_CALLERS, seconds=SECONDS)
        return (await send("governed_load", load)).p99_ms


def _company(tollhouse: CommandLine, tenant: str, policies: Sequence[Sequence[str]]) -> str:
    """Make a tenant and return a key of its."""
    here = ("--tenant", tenant, "--department", "research")
    tollhouse.ok("tenants", "create", tenant, "--display-name", tenant)
    tollhouse.ok("departments", "create", "research", "--tenant", tenant)
    tollhouse.ok("projects", "create", "chat", *here)
    tollhouse.ok("principals", "create", "chat-service", "--tenant", tenant)
    tollhouse.ok("roles", "grant", "chat-service", "caller", *here, "--project", "chat")
    for policy in policies:
        tollhouse.ok(*policy, "--tenant", tenant)
    key = tollhouse.json("keys", "create", "--principal", "chat-service", *here, "--project", "chat")
    return str(key["secret"])


@asynccontextmanager
async def _serving() -> AsyncIterator[_Big]:
    async with canned() as upstream, governed(upstream, transport=TRANSPORT) as running:
        with tempfile.TemporaryDirectory() as home:
            tollhouse = administrators(running.stack, Path(home))
            tenants = {"other": (), **POLICIES}
            keys = {name: await asyncio.to_thread(_company, tollhouse, name, tenants[name]) for name in tenants}
        caller = await started("big_calls")
        big = _Big(running, upstream, caller, keys)
        await big.small_p99_ms()
        big.rest_bytes = big.memory_bytes("VmRSS")
        yield big
        assert caller.stdin is not None
        caller.stdin.close()
        await caller.wait()
        assert await running.records() > 0


async def _memory_and_block(recorder: Recorder, big: _Big, case: Case, key: str, name: str, calls: int) -> None:
    big.rest_bytes = min(big.rest_bytes, big.memory_bytes("VmRSS"))
    before = big.memory_bytes("VmRSS")
    (big.worker / "clear_refs").write_text(_RESET_PEAK)
    seen = await big.send(case, key, calls=calls)
    peak = big.memory_bytes("VmHWM")
    payload_bytes = case.payload_bytes * calls
    found = {
        "peak_by_payload": (peak - before) / payload_bytes,
        "peak_over_least_by_payload": (peak - big.rest_bytes) / payload_bytes,
        "kept_mb": (big.memory_bytes("VmRSS") - big.rest_bytes) / _MEGABYTE,
        "loop_blocked_ms": seen.blocked_ms,
        "call_ms": seen.p50_ms,
    }
    recorder.record_all(f"big/{TRANSPORT}/{name}/c{calls}", found)


async def _others(recorder: Recorder, big: _Big, case: Case, key: str, name: str) -> None:
    alone = await big.small_p99_ms()
    load = asyncio.create_task(big.send(case, key, calls=1, seconds=SECONDS))
    meanwhile = await big.small_p99_ms()
    await load
    found = {"others_p99_alone_ms": alone, "others_p99_ms": meanwhile}
    recorder.record_all(f"big/{TRANSPORT}/{name}/c1", found)


@pytest.mark.parametrize("policy", POLICIES)
async def test_big_calls(recorder: Recorder, policy: str) -> None:
    """20 MB of media in, a prompt of a million tokens, three pictures out: one call, then four at once."""
    async with _serving() as big:
        for case_name in in_turns(list(CASES)):
            case, name = CASES[case_name], f"{case_name}/{policy}"
            await big.upstream.be(Manner(pictures=case.pictures, picture_bytes=case.picture_bytes))
            for calls in CALLS:
                await _memory_and_block(recorder, big, case, big.keys[policy], name, calls)
            await big.upstream.be(Manner())
            if not case.pictures:
                await _others(recorder, big, case, big.keys[policy], name)

    assert recorder.found
