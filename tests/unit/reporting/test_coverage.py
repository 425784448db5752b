"""What of a period is read from roll-ups."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from tollhouse_server.reporting.coverage import plan_reading
from tollhouse_server.reporting.periods import Period, days_of

MAY = datetime(2026, 5, 1, tzinfo=UTC)


def hours(start: float, end: float) -> Period:
    return Period(start=MAY + timedelta(hours=start), end=MAY + timedelta(hours=end))


def test_stretches_tile_the_period_whatever_is_rolled_up() -> None:
    """Without a gap, without an overlap, and no two of a kind side by side."""
    chance = random.Random(7)
    for _ in range(200):
        cuts = sorted(chance.sample(range(100), 8))
        rolled = [hours(a, b) for a, b in pairwise(cuts) if chance.random() < 0.5]
        whole = hours(0, 100)

        plan = plan_reading(whole, rolled)

        tiles = sorted((*plan.rolled_up, *plan.records), key=lambda one: one.start)
        assert [whole.start, *(one.end for one in tiles)] == [*(one.start for one in tiles), whole.end]
        assert sum((one.end - one.start for one in plan.rolled_up), timedelta()) == sum(
            (one.end - one.start for one in rolled), timedelta()
        )


def test_a_rolled_up_day_is_used_only_within_one_day_of_the_split() -> None:
    """A tenant that moved from Berlin has days that New York's midnights cut."""
    whole = hours(0, 72)
    rolled = [hours(0, 24), hours(24, 28), hours(28, 52), hours(52, 72)]
    days = days_of(whole, ZoneInfo("America/New_York"))

    plan = plan_reading(whole, rolled, days)

    assert (plan.records, plan.rolled_up) == ((hours(0, 24),), (hours(24, 72),))


def test_a_period_of_no_time_needs_nothing() -> None:
    """Neither records nor roll-ups."""
    plan = plan_reading(hours(5, 5), [])

    assert (plan.rolled_up, plan.records) == ((), ())
