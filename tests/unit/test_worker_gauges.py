"""What a worker tells of itself at its start."""

import asyncio
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from tollhouse_server.database.epochs import EpochWatch
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.key_ring import KeyRing
from tollhouse_server.wiring.worker import _gauges as tell_for_ever


async def test_a_worker_that_has_not_asked_yet_says_of_no_part_that_it_is_away() -> None:
    """Its first look may come long after it was built; until then it would make the server not ready."""
    nothing: Any = None
    registry = CollectorRegistry()
    knowledge: Any = SimpleNamespace(
        watch=EpochWatch(nothing),
        keys=KeyRing(nothing),
        catalogue=SimpleNamespace(current=SimpleNamespace(accounts=tuple)),
    )
    ledger: Any = SimpleNamespace(tick=SimpleNamespace(queued=0))

    telling = asyncio.create_task(tell_for_ever(Metrics(registry), knowledge, ledger))
    await asyncio.sleep(0)
    telling.cancel()

    told = {part: registry.get_sample_value("tollhouse_part_up", {"part": part}) for part in ("database", "vault")}
    assert told == {"database": 1, "vault": 1}
