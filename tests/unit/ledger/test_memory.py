"""The days on which request ids are claimed, and the guess of the database's clock."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.ledger.memory import DatabaseClock, PlanBackoff
from tollhouse_server.ledger.windows import days_of_claims

MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)


@given(first=st.integers(-600, 600), apart=st.integers(0, 240))
def test_two_ticks_of_the_same_minutes_meet_on_a_day(first: int, apart: int) -> None:
    """Whichever side of midnight each is on: both claim the same id for one day at least, so that one of them loses."""
    one = MIDNIGHT + timedelta(seconds=first)
    other = one + timedelta(seconds=apart)

    claimed = set(days_of_claims(one).claimed) & set(days_of_claims(other).claimed)

    assert claimed


@given(st.integers(0, 24 * 3600))
def test_an_id_is_seen_for_a_day_after_it_was_claimed(seconds_later: int) -> None:
    """At least 24 hours, whenever in the day it came."""
    for claimed_at in (MIDNIGHT, MIDNIGHT + timedelta(hours=11), MIDNIGHT + timedelta(hours=23, minutes=59)):
        claimed = days_of_claims(claimed_at).claimed

        days = days_of_claims(claimed_at + timedelta(seconds=seconds_later))

        assert set(claimed) & {days.yesterday, days.today}


def test_days_are_those_of_utc() -> None:
    """Every server must mean the same day."""
    days = days_of_claims(MIDNIGHT + timedelta(hours=3))

    assert (days.yesterday, days.today) == (date(2026, 11, 21), date(2026, 11, 22))
    assert (days.earlier, days.claimed) == (date(2026, 11, 21), [date(2026, 11, 22)])


def test_the_clock_is_not_guessed_before_it_was_read() -> None:
    """A process that has just started asks."""
    clock = DatabaseClock()
    unread = clock.guess()
    clock.note(MIDNIGHT)

    guessed = clock.guess()

    assert unread is None
    assert guessed is not None
    assert timedelta(0) <= guessed - MIDNIGHT < timedelta(minutes=1)


def test_after_a_failed_plan_ever_more_ticks_look_first() -> None:
    """A budget that is used up costs few plans in vain, and a plan that holds ends the backoff."""
    backoff = PlanBackoff()
    lengths = []
    for _ in range(3):
        backoff.plan_failed()
        lengths.append(ticks_that_look(backoff))

    backoff.plan_held()
    backoff.plan_failed()
    after_a_good_one = ticks_that_look(backoff)

    assert lengths == [8, 16, 32]
    assert after_a_good_one == 8


def ticks_that_look(backoff: PlanBackoff) -> int:
    """Count the ticks up to the first that does not look."""
    count = 0
    while backoff.looks_first():
        count += 1
    return count
