"""What a worker writes at its end."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.wiring.worker import Worker, last_writes


@dataclass(slots=True)
class Log:
    """Something that is written now and then, and fails where it is told to."""

    fails: bool = False
    was_written: bool = False

    async def write(self) -> None:
        """Write."""
        if self.fails:
            raise StoreUnavailable(detail="gone")
        self.was_written = True

    publish = say_goodbye = write


class Part:
    """A part of a worker that has nothing to do at its end; of its calls all ended, or not."""

    def __init__(self, *, all_ended: bool = True) -> None:
        self._all_ended = all_ended
        self.writer = self
        self.ledger = SimpleNamespace(in_flight=0)

    async def stop(self, _seconds: float) -> None:
        """Stop."""

    async def say_goodbye(self) -> None:
        """Say goodbye."""

    async def drain(self, _seconds: float) -> bool:
        """Wait for what is under way."""
        return self._all_ended


def worker(logs: list[Log], reports: Log, *, all_ended: bool = True) -> Worker:
    """A worker that has nothing to do but its last writes."""
    key_use, findings, refused_spend, refusals, last_use = cast(Any, logs)
    idle = cast(Any, Part(all_ended=all_ended))
    audit, identity = cast(Any, SimpleNamespace(refusals=refusals)), cast(Any, SimpleNamespace(last_use=last_use))
    return Worker(
        port=0,
        server=idle,
        calls=idle,
        ledger=idle,
        content=idle,
        reports=cast(Any, reports),
        last_writes=last_writes(key_use, findings, refused_spend, audit, identity),
    )


@pytest.mark.parametrize("failing", range(6))
async def test_what_cannot_be_written_at_the_end_keeps_nothing_else_from_it(failing: int) -> None:
    """Uses of keys, findings, refused spend, refusals, last uses, the report: each stands for itself."""
    logs = [Log(fails=number == failing) for number in range(6)]

    await worker(logs[:5], logs[5]).drain(1.0)

    assert [log.was_written for log in logs] == [number != failing for number in range(6)]


async def test_whoever_has_cut_calls_gives_up_no_share() -> None:
    """They count at their upstreams for some seconds more, and others would send theirs beside them."""
    logs, reports = [Log() for _ in range(5)], Log()

    await worker(logs, reports, all_ended=False).drain(1.0)

    assert all(log.was_written for log in logs)
    assert not reports.was_written
