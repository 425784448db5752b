"""Values in the pictures of the boards are written as Grafana's units say, and axes are round."""

import json

import pytest

from grafana.drawing.units import axis, written
from grafana.pictures import rendered_boards


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (1234, "short", "1.23 K"),
        (-12, "short", "-12"),
        (2_500_000, "short", "2.5 Mil"),
        (0.00123, "short", "0.00123"),
        (0, "bytes", "0 B"),
        (1536, "bytes", "1.5 KiB"),
        (959 * 2**20, "bytes", "959 MiB"),
        (0.00234, "currencyUSD", "$0.00234"),
        (-12_340, "currencyUSD", "-$12.3K"),
        (0, "s", "0 s"),
        (0.00012, "s", "120 µs"),
        (0.0125, "s", "12.5 ms"),
        (90, "s", "1.5 min"),
        (172_800, "s", "2 days"),
        (21, "d", "21 days"),
        (0.9995, "percentunit", "99.95 %"),
        (1.16, "reqps", "1.16 req/s"),
        (1, "bool_yes_no", "Yes"),
        (0, "bool_yes_no", "No"),
        (float("nan"), "s", "no value"),
        (float("inf"), "s", "∞"),
    ],
)
def test_value_is_written_with_its_unit(value: float, unit: str, text: str) -> None:
    """Three digits, four of shares, and no zeros at the end."""
    assert written(value, unit) == text


def test_every_unit_of_a_board_can_be_written() -> None:
    """A new panel with a unit of its own is not to be found out by a run of eight minutes."""
    units = {
        panel["fieldConfig"]["defaults"]["unit"]
        for board in rendered_boards().values()
        for panel in board["panels"]
        if panel["type"] != "row"
    }

    assert units
    assert all(written(1.0, unit) for unit in units), json.dumps(sorted(units))


@pytest.mark.parametrize(
    ("low", "high", "unit", "ticks"),
    [
        (0, 0, "short", [0, 0.25, 0.5, 0.75, 1]),
        (0, 26, "reqps", [0, 10, 20, 30]),
        (-3, 4, "short", [-4, -2, 0, 2, 4]),
        (0, 100, "s", [0, 30, 60, 90, 120]),
        (0, 200_000, "s", [0, 86_400, 172_800, 259_200]),
        (0, 3 * 2**20, "bytes", [0, 2**20, 2 * 2**20, 3 * 2**20]),
    ],
)
def test_axis_is_round_in_its_unit(low: float, high: float, unit: str, ticks: list[float]) -> None:
    """Minutes and kibibytes have round values of their own, and no axis is a point."""
    assert axis(low, high, unit) == pytest.approx(ticks)
