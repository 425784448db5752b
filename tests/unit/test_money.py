"""Amounts divided: nothing is lost, and rounding happens once."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.money import divided, marginal, spread

_AMOUNTS = st.integers(-(2**62), 2**62)
_WEIGHTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(-5, 2**60), min_size=1, max_size=40)


@given(_AMOUNTS, _WEIGHTS)
def test_parts_sum_to_the_whole(total: int, weights: dict[str, int]) -> None:
    """Whatever the sign, with weights of zero and below too."""
    parts = spread(total, weights)

    assert sum(parts.values()) == total
    assert list(parts) == list(weights)


@given(_AMOUNTS, _WEIGHTS)
def test_no_part_is_a_whole_unit_away_from_its_exact_share(total: int, weights: dict[str, int]) -> None:
    """And none has the other sign."""
    counted = {key: max(weight, 0) for key, weight in weights.items()}
    whole = sum(counted.values())
    exact = {
        key: Fraction(total * weight, whole) if whole else Fraction(total, len(weights))
        for key, weight in counted.items()
    }

    parts = spread(total, weights)

    assert all(abs(parts[key] - exact[key]) < 1 for key in parts)
    assert all(part * total >= 0 for part in parts.values())


def test_what_is_left_goes_to_the_largest_remainders_and_of_equal_ones_to_the_first() -> None:
    """The order of the mapping decides, so that a month is spread alike every time."""
    equal = spread(10, {"a": 1, "b": 1, "c": 1, "d": 1})
    largest = spread(100, {"a": 1, "b": 2, "c": 3})
    credit = spread(-100, {"a": 1, "b": 2, "c": 3})

    assert equal == {"a": 3, "b": 3, "c": 2, "d": 2}
    assert largest == {"a": 17, "b": 33, "c": 50}
    assert credit == {"a": -17, "b": -33, "c": -50}


def test_without_use_everybody_has_the_same_part() -> None:
    """A fee is due in a month without a call too; with nobody there is nothing to say."""
    assert spread(10, {"a": 0, "b": 0, "c": 0}) == {"a": 4, "b": 3, "c": 3}
    assert spread(10, {}) == {}


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_a_quotient_is_rounded_half_to_even(numerator: int, denominator: int) -> None:
    """As `decimal` does it."""
    with localcontext() as context:
        context.prec = 80
        expected = (Decimal(numerator) / denominator).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)

    assert divided(numerator, denominator) == int(expected)


@pytest.mark.parametrize(("numerator", "rounded"), [(1, 0), (3, 2), (5, 2), (-1, 0), (-3, -2), (-5, -2)])
def test_a_half_goes_to_the_even_side(numerator: int, rounded: int) -> None:
    """Below zero too."""
    assert divided(numerator, 2) == rounded


@given(st.integers(0, 10**15), st.lists(st.tuples(st.integers(0, 10**14), st.integers(-(10**6), 10**6)), max_size=6))
def test_steps_are_bands_of_a_tax(basis: int, steps: list[tuple[int, int]]) -> None:
    """Each stretch has the rate of its own band, and all of it is rounded once."""
    bands = dict(sorted(dict(steps).items()))
    starts = [*bands, 10**16]
    exact = sum(
        (Fraction(max(0, min(basis, end) - start) * bands[start], 10**6) for start, end in pairwise(starts)),
        Fraction(0),
    )

    assert marginal(basis, bands, whole=10**6) == round(exact)


@given(_AMOUNTS, _WEIGHTS)
def test_a_part_taken_back_is_the_part_that_was_given(total: int, weights: dict[str, int]) -> None:
    """What is spread the other way round cancels out for everybody."""
    given_out, taken_back = spread(total, weights), spread(-total, weights)

    assert all(given_out[key] + taken_back[key] == 0 for key in weights)
