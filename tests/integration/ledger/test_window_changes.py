"""What a window has counted when it is over.

The database's clock cannot be set, so what was counted is moved into the past.
"""

import asyncio
from datetime import timedelta

import pytest
from tollhouse_server.errors import LimitExceeded

from tests.drivers.ledger import LedgerProcess, LedgerView, settled, terms


@pytest.fixture(autouse=True)
async def early_in_the_minute(view: LedgerView) -> None:
    """Begin when there is enough left of the minute for a whole test."""
    seconds = float(await view.connection.fetchval("SELECT extract(second FROM clock_timestamp())"))
    if seconds > 55:
        await asyncio.sleep(60.1 - seconds)


async def serve(process: LedgerProcess) -> None:
    """Make a call and settle it."""
    await process.ledger.settle(await process.ledger.reserve(terms(), timeout_seconds=5), settled())


async def refusal(process: LedgerProcess) -> LimitExceeded | None:
    """Make a call; return why it is not admitted, None if it is."""
    try:
        await process.ledger.release(await process.ledger.reserve(terms(), timeout_seconds=5))
    except LimitExceeded as error:
        return error
    return None


async def pass_time(view: LedgerView, minutes: int) -> None:
    """Let all that was counted have been counted so long ago."""
    # A rolling limit has the counter of the next minute too: it would be moved onto this one's.
    await view.connection.execute("DELETE FROM counter WHERE held = 0 AND settled = 0")
    await view.connection.execute(
        "UPDATE counter SET window_start = window_start - $1::interval", timedelta(minutes=minutes)
    )


@pytest.mark.parametrize(("window", "minutes"), [("MINUTE", 1), ("HOUR", 60), ("DAY", 24 * 60)])
async def test_a_window_that_is_over_counts_no_more(
    process: LedgerProcess, view: LedgerView, window: str, minutes: int
) -> None:
    """A process that knows the old counter makes a new one."""
    await view.add_limit("calls", "tenants/acme", "REQUESTS", window, 1)
    await serve(process)
    before = await refusal(process)

    await pass_time(view, minutes)

    after = await refusal(process)
    assert before is not None
    assert after is None


@pytest.mark.parametrize(("minutes", "counts"), [(0, True), (1, True), (9, True), (10, True), (11, False), (12, False)])
async def test_a_rolling_window_counts_ten_minutes_and_the_one_that_runs(
    process: LedgerProcess, view: LedgerView, minutes: int, counts: bool
) -> None:
    """A call of ten minutes ago counts, one of eleven minutes ago does not."""
    await view.add_limit("calls", "tenants/acme", "REQUESTS", "ROLLING_10_MINUTES", 1)
    await serve(process)
    await pass_time(view, minutes)

    refused = await refusal(process)

    assert (refused is not None) is counts


async def test_a_rolling_window_adds_its_minutes_up_and_says_when_enough_of_it_is_over(
    process: LedgerProcess, view: LedgerView
) -> None:
    """Three calls in three minutes fill a limit of three; the oldest of them makes room first."""
    await view.add_limit("calls", "tenants/acme", "REQUESTS", "ROLLING_10_MINUTES", 3)
    for minutes in (4, 3, 2):
        await serve(process)
        await pass_time(view, minutes)

    refused = await refusal(process)

    assert refused is not None
    assert refused.settled == 3
    # Begun nine minutes ago, it ends eleven minutes after that.
    assert refused.retry_after_seconds is not None
    assert 60 < refused.retry_after_seconds <= 120
