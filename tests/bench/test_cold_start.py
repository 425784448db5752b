"""How long it takes until a server serves: a new one with all that belongs to it, and one that was there before."""

import time
from pathlib import Path

import psutil
from tollhouse.v1.generation_pb2_grpc import GenerationServiceStub

from tests.bench.governed import disk_place
from tests.bench.recorder import Recorder
from tests.bench.rounds import TRANSPORT, setting
from tests.drivers.callers import bearer, generation_stub, prompt
from tests.drivers.stack import RunningStack, stack_environment, start_stack

STARTS = int(setting("BENCH_STARTS", "2"))


def _first_call_ms(stack: RunningStack, stub: GenerationServiceStub) -> float:
    began_at = time.perf_counter()
    answer = stub.GenerateContent(prompt("Why?"), metadata=bearer(stack.demo_api_key), timeout=60)
    assert answer.outcome.usage
    return (time.perf_counter() - began_at) * 1e3


def _start(directory: Path) -> dict[str, float]:
    """Start a server, call it once, and stop it."""
    began_at = time.perf_counter()
    stack = start_stack(stack_environment(directory / "state", workers=1, transport=TRANSPORT))
    try:
        stack.wait_until_ready()
        ready_seconds = time.perf_counter() - began_at
        with generation_stub(stack) as stub:
            first_call_ms = _first_call_ms(stack, stub)
        worker_mb = psutil.Process(stack.pids["worker-1"]).memory_info().rss / 1e6
        assert stack.stop() == 0
    finally:
        stack.end()
    return {"ready_s": ready_seconds, "first_call_ms": first_call_ms, "worker_rss_mb": worker_mb}


def test_from_the_command_to_the_first_answer(recorder: Recorder) -> None:
    """`tollhouse-server run` with nothing there, PostgreSQL's cluster and OpenBao included, and once more."""
    for _ in range(STARTS):
        with disk_place() as directory:
            for name in ("new", "again"):
                recorder.record_all(f"cold_start/{TRANSPORT}/{name}", _start(directory))

    assert len(recorder.found[f"cold_start/{TRANSPORT}/again/ready_s"]) >= STARTS
