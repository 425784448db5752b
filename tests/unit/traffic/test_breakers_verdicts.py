"""What the end of an attempt says about its target, by the table of upstream statuses."""

import pytest
from tollhouse_server.traffic.verdicts import is_fault_of_target
from tollhouse_server.upstream.protocol import NotSent, Refused


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 499])
def test_what_the_request_or_its_account_is_to_blame_for_is_ignored(status: int) -> None:
    """A flood of bad requests, or an exhausted quota, must not take a target away."""
    assert not is_fault_of_target(Refused(status, {}))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 302])
def test_what_the_upstream_is_to_blame_for_counts(status: int) -> None:
    """Server errors, and answers that are none of Gemini's, are failures."""
    assert is_fault_of_target(Refused(status, {}))


def test_no_exchange_counts() -> None:
    """A target that cannot be reached fails."""
    assert is_fault_of_target(NotSent("connection refused"))
