"""What a worker writes at its end."""

from dataclasses import dataclass
from types import SimpleNamespace
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

    publish = say_goodbye = write


@pytest.mark.parametrize("failing", range(6))
async def test_what_cannot_be_written_at_the_end_keeps_nothing_else_from_it(failing: int) -> None:
    """Uses of keys, findings, refused spend, refusals, use of accounts: each stands for itself."""
    logs = [Log(fails=number == failing) for number in range(6)]
    key_use, findings, refused_spend, refusals, last_use, reports = cast(Any, logs)
    worker = Worker(
        port=0,
        server=cast(Any, None),
        calls=cast(Any, None),
        reports=reports,
        ledger=cast(Any, None),
        key_use=key_use,
        findings=findings,
        refused_spend=refused_spend,
        content=cast(Any, None),
        audit=cast(Any, SimpleNamespace(refusals=refusals)),
        identity=cast(Any, SimpleNamespace(last_use=last_use)),
    )

    await worker._write_what_waits()

    assert [log.was_written for log in logs] == [number != failing for number in range(6)]
