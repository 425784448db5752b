"""Rates, amounts and months as people type them."""

import pytest
from tollhouse_admin.charge_options import parse_day, parse_pairs, parse_percent, signed_money
from tollhouse_admin.commands.shared_costs import _month_after
from tollhouse_admin.failures import Failure


@pytest.mark.parametrize(
    ("typed", "millionths"), [("5", 50_000), ("-2.5", -25_000), ("0.0001%", 1), ("100 %", 1_000_000)]
)
def test_a_rate_is_exact(typed: str, millionths: int) -> None:
    """To the ten-thousandth of a per cent."""
    assert parse_percent(typed) == millionths


@pytest.mark.parametrize("typed", ["", "5e3", "0.00001", "five", "--5"])
def test_what_is_no_rate_is_refused(typed: str) -> None:
    """And never rounded."""
    with pytest.raises(Failure, match="not a rate"):
        parse_percent(typed)


@pytest.mark.parametrize(
    ("typed", "units", "nanos"), [("10", 10, 0), ("-$5.25", -5, -250_000_000), ("-0.000000001", 0, -1)]
)
def test_an_amount_may_be_a_credit(typed: str, units: int, nanos: int) -> None:
    """Both parts have the sign."""
    money = signed_money(typed)

    assert (money.units, money.nanos) == (units, nanos)


def test_days_pairs_and_months_are_read_strictly() -> None:
    """Nothing is guessed."""
    assert parse_day("2026-12-01") == "2026-12-01"
    assert parse_pairs(["a=1", "b=x=y"], example="a=1") == {"a": "1", "b": "x=y"}
    assert (_month_after("2026-11"), _month_after("2026-12")) == ("2026-12", "2027-01")
    with pytest.raises(Failure, match="not a day"):
        parse_day("2026-11-31")
    for typed in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(Failure, match="not a pair"):
            parse_pairs(typed, example="a=1")
