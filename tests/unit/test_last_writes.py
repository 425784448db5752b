"""What a worker writes at its end."""

from dataclasses import dataclass
from typing import Any, cast

import pytest
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.wiring.worker import Worker


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


@pytest.mark.parametrize("failing", range(3))
async def test_what_cannot_be_written_at_the_end_keeps_nothing_else_from_it(failing: int) -> None:
    """Uses of keys, findings, refusals and so on: each stands for itself."""
    logs = [Log(fails=number == failing) for number in range(3)]
    none = cast(Any, None)
    worker = Worker(port=0, server=none, calls=none, ledger=none, content=none, last_writes=[log.write for log in logs])

    await worker._write_what_waits()

    assert [log.was_written for log in logs] == [number != failing for number in range(3)]
