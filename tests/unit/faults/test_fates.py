"""What the store campaign calls wrong about a call that was not answered."""

import pytest
from tollhouse_server.simulator.client import ServedCall

from tests.faults.fates import Fate
from tests.faults.traffic import Code, Refusal

ENDS_AT = 1_000.0


def fate(
    code: Code = Code.DEADLINE_EXCEEDED,
    *,
    reason: str = "",
    served_at: float | None = None,
    booked_at: float | None = None,
    is_cut: bool = False,
) -> Fate:
    """Build the fate of a call whose caller waits until second 1,000."""
    call = Refusal(request_id="r", seconds=2.0, ends_at=ENDS_AT, code=code, reason=reason)
    return Fate(call=call, served=served(served_at), is_cut=is_cut, booked_at=booked_at)


def served(at: float | None) -> ServedCall | None:
    """Build a row of the simulator's log."""
    if at is None:
        return None
    row = {
        "sequence": 1,
        "key_id": "k",
        "project": "p",
        "region": "",
        "model": "m",
        "method": "generateContent",
        "usage": {},
    }
    more = {"attempt_id": "a", "service_tier": "standard", "fault": None, "image_count": 0, "response_id": None}
    return ServedCall.read({**row, **more, "served_at_ms": int(at * 1000)})


@pytest.mark.parametrize(
    "right",
    [
        fate(Code.UNAVAILABLE, reason="STORE_UNAVAILABLE"),
        fate(Code.UNAVAILABLE, reason="STORE_UNAVAILABLE", served_at=999.0, booked_at=1_001.0, is_cut=True),
        fate(served_at=999.0, booked_at=1_001.0),
        fate(served_at=999.0, booked_at=999.9),
        fate(served_at=999.0),
    ],
)
def test_a_call_that_was_told_the_truth_is_no_finding(right: Fate) -> None:
    """Not sent and told so; cut in its midst; served, and booked too late for its caller."""
    wrongs = list(right.wrongs())

    assert wrongs == []


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (fate(), "not admitted, and told nothing in time"),
        (fate(Code.UNAVAILABLE), "UNAVAILABLE for another reason"),
        (fate(Code.UNAVAILABLE, reason="STORE_UNAVAILABLE", served_at=999.0), "served, and told that nothing was sent"),
        (fate(served_at=1_000.5), "sent when its caller's time was up"),
        (fate(served_at=998.5, booked_at=999.0), "served and booked in time, and not answered"),
    ],
)
def test_a_call_that_was_told_something_else_is_a_finding(wrong: Fate, rule: str) -> None:
    """Every rule can be broken."""
    wrongs = list(wrong.wrongs())

    assert wrongs == [rule]
