"""Who is told of calls that a limit has refused."""

import pytest
from tollhouse_server.errors import LimitExceeded
from tollhouse_server.generation.attempts import Attempts
from tollhouse_server.ledger.terms import CallTerms

from tests.drivers.ledger import LedgerProcess, LedgerView, terms


async def test_a_call_that_a_limit_refuses_is_noted_with_what_it_would_have_held(
    process: LedgerProcess, view: LedgerView
) -> None:
    """One that is admitted is not."""
    await view.add_limit("budget", "tenants/acme", "COST", "MONTH", 1000)
    noted: list[CallTerms] = []
    attempts = Attempts(process.ledger, noted.append)
    fits, does_not = terms(cost_nanos=1000), terms(cost_nanos=1001)

    async with await attempts.open(fits, timeout_seconds=5) as attempt:
        attempt.refused("HTTP_400")
    with pytest.raises(LimitExceeded):
        async with await attempts.open(does_not, timeout_seconds=5):
            raise AssertionError

    assert noted == [does_not]
