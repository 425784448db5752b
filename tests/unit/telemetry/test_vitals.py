"""What a process says of itself as long as it lives."""

import asyncio
import time

from prometheus_client import CollectorRegistry
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.telemetry.vitals import Vitals


async def test_a_loop_that_was_held_up_says_for_how_long() -> None:
    """Whoever computes in the event loop keeps every call waiting."""
    registry = CollectorRegistry()
    running = asyncio.create_task(Vitals(Metrics(registry), "worker", beat_seconds=0.05).run())
    await asyncio.sleep(0)

    time.sleep(0.3)  # noqa: ASYNC251 - this is what is to be noticed
    await asyncio.sleep(0.02)

    running.cancel()
    lag = registry.get_sample_value("tollhouse_event_loop_lag_seconds", {"role": "worker"})
    assert lag is not None
    assert 0.2 < lag < 5
