"""What is expected of calls that nobody knows yet, and of those that are known."""

from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.ledger.expectations import Expectations
from tollhouse_server.ledger.terms import EVERYTHING, Amounts

from tests.drivers.ledger import terms


def used(cost_nanos: int) -> Amounts:
    """Build what a call of `terms()` has used."""
    return Amounts(requests=1, input_tokens=5, output_tokens=10, cost_nanos=cost_nanos)


def test_an_unknown_kind_of_call_is_expected_to_cost_its_ceiling() -> None:
    """Nothing is learned from a few calls, nor from calls to another model."""
    expectations = Expectations()
    for _ in range(15):
        expectations.learn(terms(cost_nanos=100), used(1))
    for _ in range(100):
        expectations.learn(terms(cost_nanos=100, model="gemini-2.5-pro"), used(1))

    assert expectations.of(terms()) is EVERYTHING


def test_half_of_the_calls_use_no_more_than_is_expected() -> None:
    """The dearest third of these does not count."""
    expectations = Expectations()
    for number in range(128):
        expectations.learn(terms(cost_nanos=1000), used(100 if number % 3 else 1000))

    shares = expectations.of(terms())

    assert shares.of(Amounts(1, 10, 20, 0, 1000)) == Amounts(1, 5, 10, 0, 100)


def test_expectations_follow_what_changes() -> None:
    """Only the last calls count."""
    expectations = Expectations()
    for cost_nanos in (10, 500):
        for _ in range(256):
            expectations.learn(terms(cost_nanos=1000), used(cost_nanos))

    assert expectations.of(terms()).of(Amounts(cost_nanos=1000)).cost_nanos == 500


@given(ceiling=st.integers(1, 10**12), costs=st.lists(st.integers(0, 10**13), min_size=128, max_size=128))
def test_nobody_is_expected_to_use_more_than_the_ceiling(ceiling: int, costs: list[int]) -> None:
    """Also after calls that were settled above it."""
    expectations = Expectations()
    for cost_nanos in costs:
        expectations.learn(terms(cost_nanos=ceiling), used(cost_nanos))

    expected = expectations.of(terms()).of(Amounts(requests=1, cost_nanos=ceiling))

    assert 0 <= expected.cost_nanos <= ceiling
