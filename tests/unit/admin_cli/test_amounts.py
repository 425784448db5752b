"""Money, counts and moments are exact, and what is not one is refused."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_admin.amounts import (
    dollars_of,
    dollars_of_nanos,
    dollars_text,
    money_of,
    parse_count,
    parse_dollars,
    parse_duration,
    parse_moment,
    parse_month,
)
from tollhouse_admin.failures import Failure

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_any_amount_of_nano_dollars_survives_the_way_to_text_and_back(nanos: int) -> None:
    """What is printed can be typed in again, to the last nano-dollar, also beyond a float's precision."""
    text = dollars_text(dollars_of_nanos(nanos))

    money = money_of(parse_dollars(text))

    assert money.units * 10**9 + money.nanos == nanos


@given(st.integers(min_value=-(2**80), max_value=2**80))
def test_nano_dollars_become_dollars_without_rounding(nanos: int) -> None:
    """Decimal's default precision must not cut large amounts."""
    assert dollars_of_nanos(nanos).scaleb(9).to_integral_exact() == nanos if abs(nanos) < 10**28 else True
    assert int(f"{dollars_of_nanos(nanos):f}".replace(".", "")) == nanos


@pytest.mark.parametrize(
    ("text", "amount"),
    [("$100", "100"), ("0.10", "0.10"), (" $1_000.5 ", "1000.5"), ("0.000000001", "0.000000001"), ("0", "0")],
)
def test_dollars_are_read_as_people_write_them(text: str, amount: str) -> None:
    """A dollar sign and underscores are welcome."""
    assert parse_dollars(text) == Decimal(amount)


@pytest.mark.parametrize(
    "text", ["", "$", "-1", "1e3", "1,000", "1,5", "NaN", "Infinity", "0.0000000001", "1.", "9" * 20, "１００"]
)
def test_what_is_not_an_exact_amount_is_refused(text: str) -> None:
    """A comma could mean thousands or cents; below a nano-dollar there is nothing."""
    with pytest.raises(Failure, match="error: USAGE"):
        parse_dollars(text)


def test_negative_money_reads_right() -> None:
    """An adjustment may be negative, in units and nanos both."""
    money = money_of(Decimal("-1.5"))

    assert (money.units, money.nanos) == (-1, -500_000_000)
    assert dollars_text(dollars_of(money)) == "-1.50"


@pytest.mark.parametrize(("text", "count"), [("5000", 5000), ("5k", 5000), ("1.5M", 1_500_000), ("2g", 2 * 10**9)])
def test_counts_may_be_short(text: str, count: int) -> None:
    """Tokens come in millions."""
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "1.5", "-3", "five", "1e6", "9" * 25])
def test_what_is_not_a_whole_count_is_refused(text: str) -> None:
    """Half a request is none."""
    with pytest.raises(Failure):
        parse_count(text)


def test_durations_add_up() -> None:
    """1h30m is ninety minutes."""
    assert parse_duration("1h30m").total_seconds() == 5400


@pytest.mark.parametrize(
    ("text", "past", "moment"),
    [
        ("2026-12-31", False, "2026-12-31T00:00:00Z"),
        ("2026-12-31T12:00+02:00", False, "2026-12-31T10:00:00Z"),
        ("10d", False, "2026-12-01T12:00:00Z"),
        ("1d", True, "2026-11-20T12:00:00Z"),
    ],
)
def test_moments_are_dates_times_or_spans_from_now(text: str, past: bool, moment: str) -> None:
    """Without a zone a date is one of UTC."""
    assert parse_moment(text, now=NOW, past=past).ToJsonString() == moment


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01", "2026-02-30", "10", "9999999w", "99999999999999999w"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Also what lies outside of the calendar."""
    with pytest.raises(Failure):
        parse_moment(text, now=NOW, past=False)


def test_last_month_of_january_is_december() -> None:
    """The month before the first is in the year before."""
    assert parse_month("last", today=date(2026, 1, 31)) == "2025-12"
