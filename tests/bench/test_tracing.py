"""What logs and traces cost: the same load in turns with neither, with logs, and with traces of some and of all calls.

Callers say which of their calls are traced, so that one server is compared with itself; another one has no logs. Each
has one worker, whose processor time is read; upstream and collector answer from another process, always the same.
Rounds are short and many, as others use the machine too.
"""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub
from tollhouse_server.telemetry.observing import Observer, Sampling
from tollhouse_server.telemetry.otlp import spans_of
from tollhouse_server.telemetry.steps import CallNotes, noting, step
from tollhouse_server.telemetry.tracecontext import new_span_number, new_trace_id

from tests.bench.recorder import Recorder
from tests.bench.test_upstream import canned_server
from tests.drivers.callers import bearer, prompt
from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack, stack_environment, start_stack

CALLS = int(os.environ.get("BENCH_CALLS", "150"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "40"))
CALLERS = 32
QUIET: Mapping[str, object] = {"log_level": "error"}
TELLING: Mapping[str, object] = {"log_level": "info", "traces": "otlp"}
VARIANTS: Mapping[str, tuple[Mapping[str, object], int]] = {
    "neither": (QUIET, 0),
    "logs": (TELLING, 0),
    "logs, traces 0.1": (TELLING, 10),
    "logs, traces 1.0": (TELLING, 1),
}
"""The server, and how many calls there are to each one that is traced."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of load on one server."""

    cpu_us: float
    calls_per_second: float


@asynccontextmanager
async def servers() -> AsyncIterator[Mapping[str, RunningStack]]:
    """Run both servers, and give that of each variant."""
    async with canned_server() as port:
        with ExitStack() as stack:
            started = [(settings, _start(stack, port, settings)) for settings in (QUIET, TELLING)]
            yield {name: next(one for kind, one in started if kind is wanted) for name, (wanted, _) in VARIANTS.items()}


def _start(stack: ExitStack, port: int, settings: Mapping[str, object]) -> RunningStack:
    directory = stack.enter_context(servers_place("tracing"))
    url = f"http://127.0.0.1:{port}"
    environment = stack_environment(
        directory / "state", workers=1, gemini_base_url=url, traces_endpoint=url, **settings
    )
    running = start_stack({**environment, "GEMINI_API_KEY": "a-key"})
    stack.callback(running.end)
    running.wait_until_ready()
    return running


async def one_round(stack: RunningStack, traced_each: int) -> Round:
    """Make the calls; the worker's processor time includes what it does for its logs and traces beside them."""
    worker = psutil.Process(stack.pids["worker-1"])
    request, numbers = prompt("How long is the bridge? " * 18), iter(range(CALLS))

    async def call(stub: Any) -> None:
        for number in numbers:
            flags = "01" if traced_each and number % traced_each == 0 else "00"
            context = ("traceparent", f"00-{new_trace_id()}-{new_span_number():016x}-{flags}")
            await stub.GenerateContent(request, metadata=(*bearer(stack.demo_api_key), context), timeout=60)

    async with AsyncExitStack() as channels:
        opened = [await channels.enter_async_context(grpc.aio.insecure_channel(stack.grpc)) for _ in range(CALLERS)]
        before, began_at = worker.cpu_times(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for channel in opened:
                group.create_task(call(GenerationServiceStub(channel)))
        # What is told of the last calls goes out half a second later.
        seconds = time.perf_counter() - began_at
        await asyncio.sleep(0.6)
    after = worker.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return Round(cpu_us=spent / CALLS * 1e6, calls_per_second=CALLS / seconds)


async def test_logs_and_traces_on_a_server(recorder: Recorder) -> None:
    """Processor time of the worker for a call, calls per second, and both as a ratio to neither logs nor traces."""
    rounds: dict[str, list[Round]] = {name: [] for name in VARIANTS}

    async with servers() as running:
        for number in range(ROUNDS + 1):
            # Each is the first, the second ... in turn.
            names = list(running)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found = await one_round(running[name], VARIANTS[name][1])
                # The first round warms up.
                rounds[name] += [found] if number else []

    _record(recorder, rounds)
    assert all(len(found) == ROUNDS for found in rounds.values())


def _record(recorder: Recorder, rounds: Mapping[str, list[Round]]) -> None:
    """Record all rounds and the ratio of their sums; they take turns: what others do meanwhile meets all alike."""
    plain = statistics.fmean(one.cpu_us for one in rounds["neither"])
    for name, found in rounds.items():
        key = f"tracing/{name.replace(',', '').replace(' ', '_')}"
        recorder.record(f"{key}/cpu_us_per_call", *(one.cpu_us for one in found))
        recorder.record(f"{key}/calls_per_s", *(one.calls_per_second for one in found))
        recorder.record(f"{key}/cpu_ratio_to_neither", statistics.fmean(one.cpu_us for one in found) / plain)


def test_notes_lines_and_spans_by_themselves(recorder: Recorder) -> None:
    """Processor time of one call's eight steps noted, and written as spans; of a step where no call is served."""
    ended: list[CallNotes] = []
    observer = Observer(sampling=Sampling(ratio=1.0), traced=ended.append)

    noted = _time(lambda: _call(observer), 5000)
    written = _time(lambda: spans_of(ended[0]), 5000)
    nothing = _time(_step, 50_000)

    found = {"notes_cpu_us": noted, "spans_cpu_us": written, "step_of_no_call_cpu_us": nothing}
    recorder.record_all("tracing_alone/eight_steps", found)
    assert len(ended) == 5000


def _call(observer: Observer) -> None:
    notes = observer.begin("GenerationService.GenerateContent", {})
    with noting(notes):
        for _ in range(8):
            _step()
    notes.finish("OK")


def _step() -> None:
    with step("reserve"):
        pass


def _time(do: Callable[[], object], times: int) -> float:
    began_at = time.process_time()
    for _ in range(times):
        do()
    return (time.process_time() - began_at) / times * 1e6
