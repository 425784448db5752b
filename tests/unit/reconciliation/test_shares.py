"""An amount is divided so that the parts are the whole."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.reconciliation.shares import spread

WEIGHTS = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 10**18), min_size=1, max_size=40)
NANOS = st.integers(-(2**63), 2**63 - 1)


@given(NANOS, WEIGHTS)
def test_parts_sum_to_the_whole_exactly(total: int, weights: dict[str, int]) -> None:
    """Whatever the sign, the size and the number of those who share."""
    parts = spread(total, weights)

    assert sum(parts.values()) == total
    assert parts.keys() == weights.keys()


@given(NANOS, WEIGHTS)
def test_no_part_is_a_whole_unit_away_from_its_share(total: int, weights: dict[str, int]) -> None:
    """Rounding moves less than one nano-dollar of anybody's share."""
    parts = spread(total, weights)

    whole = sum(weights.values())
    assert all(abs(part - Fraction(total * weights[key], whole)) < 1 for key, part in parts.items())


@given(NANOS, WEIGHTS)
def test_a_part_taken_back_is_the_part_that_was_given(total: int, weights: dict[str, int]) -> None:
    """What is spread the other way round cancels out for everybody."""
    given_out, taken_back = spread(total, weights), spread(-total, weights)

    assert all(given_out[key] + taken_back[key] == 0 for key in weights)
