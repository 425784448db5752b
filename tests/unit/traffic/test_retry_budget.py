"""The retry budget: never more than a tenth of the calls, but for what it starts with."""

import hypothesis.strategies as st
from hypothesis import given
from tollhouse_server.traffic.retry_budget import RetryBudget


def test_the_start_balance_is_all_there_is_without_calls() -> None:
    """A server that has just started may retry a little, and says when it may not."""
    refused: list[int] = []
    budget = RetryBudget(start_attempts=3, on_refusal=lambda: refused.append(1))

    granted = [budget.may_retry() for _ in range(5)]

    assert granted == [True, True, True, False, False]
    assert len(refused) == 2


def test_ten_calls_pay_for_one_retry_exactly() -> None:
    """Tenths add up."""
    budget = RetryBudget(start_attempts=0)
    for _ in range(9):
        budget.note_call()
    before = budget.may_retry()

    budget.note_call()

    assert (before, budget.may_retry(), budget.may_retry()) == (False, True, False)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)), max_size=50))
def test_no_stretch_of_traffic_has_more_retries_than_a_tenth_and_the_bound(bursts: list[tuple[int, int]]) -> None:
    """However calls and retries alternate, over any stretch the saved-up balance is the only excess."""
    budget = RetryBudget(start_attempts=2, most_attempts=5)
    total_calls = total_retries = 0
    for calls, wanted in bursts:
        for _ in range(calls):
            budget.note_call()
        retries = sum(budget.may_retry() for _ in range(wanted))
        total_calls, total_retries = total_calls + calls, total_retries + retries

        assert retries <= 5
        assert total_retries <= 2 + total_calls / 10
