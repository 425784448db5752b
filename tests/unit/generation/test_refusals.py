"""What the caller learns when no target served a call."""

from typing import Any

import pytest
from tollhouse_server.errors import UpstreamExhausted, UpstreamRefused, UpstreamUnavailable
from tollhouse_server.generation.refusals import may_go_elsewhere, refusal_of
from tollhouse_server.upstream.protocol import NotSent, Refused


def refused(http_status: int, message: str = "no", *details: dict[str, Any]) -> Refused:
    error = {"code": http_status, "status": "STATUS", "message": message, "details": list(details)}
    return Refused(http_status, {"error": error})


def retry_after(delay: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


@pytest.mark.parametrize(
    ("error", "elsewhere"),
    [
        (NotSent("ClientConnectorError"), True),
        (refused(429), True),
        (refused(503), True),
        (refused(401), True),
        (refused(403), True),
        (refused(400, "bad key", {"reason": "API_KEY_INVALID"}), True),
        (refused(400), False),
        (refused(404), False),
    ],
    ids=str,
)
def test_only_what_is_the_callers_own_mistake_ends_the_call(error: NotSent | Refused, elsewhere: bool) -> None:
    """A refused key is ours, whatever status Google gives it."""
    assert may_go_elsewhere(error) is elsewhere


def test_a_callers_mistake_is_told_in_googles_words() -> None:
    """Status and message of the last target, after others were tried."""
    refusal = refusal_of([refused(503), refused(404, "models/x is not found")])

    assert isinstance(refusal, UpstreamRefused)
    assert (refusal.http_status, refusal.status, refusal.upstream_message) == (404, "STATUS", "models/x is not found")


@pytest.mark.parametrize(
    "secret", ["AIza" + "x" * 35, "AQ." + "x" * 40, "s3cr3t-of-a-kind-unknown"], ids=["old", "bound", "other"]
)
def test_no_key_of_ours_is_passed_on_with_googles_words(secret: str) -> None:
    """Neither in the message nor in a detail, however deep."""
    url = f"https://example.com/v1/models/m:generateContent?alt=sse&key={secret}"

    refusal = refusal_of([refused(400, f"bad request to {url}", {"links": [{"url": url}]})])

    assert isinstance(refusal, UpstreamRefused)
    assert secret not in refusal.message()
    assert secret not in str(refusal.body)
    assert "generateContent?alt=sse" in str(refusal.body)


def test_targets_that_are_all_out_of_quota_ask_for_the_shortest_delay() -> None:
    """The caller comes back when the first of them has room again."""
    refusal = refusal_of([refused(429, "no", retry_after("30s")), refused(429, "no", retry_after("2.5s"))])

    assert isinstance(refusal, UpstreamExhausted)
    assert refusal.retry_after_seconds == 2.5


def test_targets_that_failed_for_several_reasons_are_unavailable() -> None:
    """How often it was tried, and the last error."""
    refusal = refusal_of([refused(429), NotSent("ClientConnectorError")])

    assert isinstance(refusal, UpstreamUnavailable)
    assert (refusal.attempts, refusal.last_error) == (2, "ClientConnectorError")
