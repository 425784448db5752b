"""How long an upstream may keep silent before another is asked."""

import pytest
from tollhouse_server.generation.patience import Patience

MODEL, METHOD = "gemini-3.8-flash", "generateContent"


def patience_after(*silences: float) -> Patience:
    patience = Patience()
    for seconds in silences:
        patience.note(MODEL, METHOD, seconds)
    return patience


@pytest.mark.parametrize(("left", "expected"), [(60.0, 30.0), (12.0, 6.0), (8.0, 5.0)])
def test_of_an_unknown_model_half_the_time_is_waited_for(left: float, expected: float) -> None:
    """At least five seconds: models that think are slow to begin."""
    assert patience_after(0.2).seconds(MODEL, METHOD, seconds_left=left) == expected


def test_three_times_the_longest_answer_of_late_is_enough() -> None:
    """As long as that is more than five seconds, and leaves half of the time."""
    patience = patience_after(*[0.5] * 30, 4.0)

    silences = [patience.seconds(MODEL, METHOD, seconds_left=left) for left in (120.0, 16.0)]

    assert silences == [12.0, 8.0]


def test_a_quick_model_is_given_up_with_time_left_for_another_target() -> None:
    """Of five seconds that are left it takes no five: another target answers in the rest."""
    patience = patience_after(*[0.2] * 30)

    silences = [patience.seconds(MODEL, METHOD, seconds_left=left) for left in (30.0, 8.0, 5.0, 0.5)]

    assert silences == pytest.approx([5.0, 5.0, 4.4, 0.25])


@pytest.mark.parametrize(("waited", "is_usual"), [(0.1, True), (0.6, False), (6.0, False)])
def test_an_answer_that_could_still_come_says_nothing_of_its_target(waited: float, is_usual: bool) -> None:
    """Others have taken as long."""
    assert patience_after(*[0.5] * 30).is_usual(MODEL, METHOD, waited) is is_usual


def test_of_an_unknown_model_five_seconds_say_nothing() -> None:
    """Models that think are slow to begin."""
    assert patience_after(0.1).is_usual(MODEL, METHOD, 4.9)
