"""Work that is done in rounds outlasts outages of the database, and nothing else."""

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError
from tollhouse_server.database.rounds import in_rounds
from tollhouse_server.errors import StoreUnavailable


class Done(Exception):
    """There is nothing left to do."""


async def test_an_outage_postpones_work_to_the_next_round() -> None:
    """Whether PostgreSQL is gone or refuses it; what else goes wrong reaches who has begun it."""
    troubles = [StoreUnavailable(detail="gone"), DBAPIError("SELECT", None, ValueError("no")), None, Done()]
    rounds = []

    async def work() -> None:
        rounds.append(trouble := troubles.pop(0))
        if trouble is not None:
            raise trouble

    async with asyncio.timeout(5):
        with pytest.raises(Done):
            await in_rounds(work, "a test", pause_seconds=0.0)

    assert len(rounds) == 4
