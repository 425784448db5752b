"""What the end of an attempt says about its target, by the table of upstream statuses."""

from asyncio import CancelledError

import pytest
from tollhouse_server.traffic.verdicts import Verdict, verdict_of
from tollhouse_server.upstream.protocol import Broken, NotSent, Refused


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 499])
def test_what_the_request_or_its_account_is_to_blame_for_is_ignored(status: int) -> None:
    """A flood of bad requests, or an exhausted quota, must not take a target away."""
    assert verdict_of(Refused(status, {})) is Verdict.IGNORED


@pytest.mark.parametrize("status", [500, 502, 503, 504, 302])
def test_what_the_upstream_is_to_blame_for_counts(status: int) -> None:
    """Server errors, and answers that are none of Gemini's, are failures."""
    assert verdict_of(Refused(status, {})) is Verdict.FAILURE


@pytest.mark.parametrize("error", [NotSent("connection refused"), Broken("silence")])
def test_no_exchange_counts(error: Exception) -> None:
    """A target that cannot be reached, falls silent or sends garbage fails."""
    assert verdict_of(error) is Verdict.FAILURE


def test_an_answer_is_a_success() -> None:
    """No error, no blame."""
    assert verdict_of(None) is Verdict.SUCCESS


def test_a_caller_who_goes_or_has_no_time_proves_nothing() -> None:
    """Deadlines of a millisecond must not open breakers for everybody."""
    assert verdict_of(CancelledError()) is Verdict.IGNORED
    assert verdict_of(Broken("timeout"), cut_short=True) is Verdict.IGNORED
