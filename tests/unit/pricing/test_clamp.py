"""A ceiling cut to the room that limits leave: never more than fits, and as much as fits."""

from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.money import charge_nanos_ceiling
from tollhouse_server.pricing.ceiling import Ceiling

from .test_ceiling import bound, text_request


@st.composite
def ceilings(draw: st.DrawFn) -> Ceiling:
    """Any ceiling that `ceiling()` could return."""
    output, candidates = draw(st.integers(1, 100_000)), draw(st.integers(1, 8))
    image_tokens = draw(st.sampled_from([0, 0, 1_290, 20_000]))
    fixed, rate = draw(st.integers(0, 10**10)), draw(st.integers(0, 10**11))
    return Ceiling(
        input_tokens=draw(st.integers(0, 10**6)),
        output_tokens=output * candidates + image_tokens,
        images=draw(st.integers(0, 10)),
        cost_nanos=fixed + charge_nanos_ceiling(output * candidates, rate),
        max_output_tokens=output,
        fixed_nanos=fixed,
        output_nanos_per_million=rate,
        candidates=candidates,
        fixed_output_tokens=image_tokens,
    )


rooms = st.none() | st.integers(0, 10**7) | st.integers(0, 10**11)


def fits(one: Ceiling, cost_nanos: int | None, output_tokens: int | None) -> bool:
    """Tell whether both rooms hold the ceiling."""
    return (cost_nanos is None or one.cost_nanos <= cost_nanos) and (
        output_tokens is None or one.output_tokens <= output_tokens
    )


@given(ceilings(), rooms, rooms)
def test_a_clamp_fits_and_one_token_more_would_not(whole: Ceiling, cost: int | None, tokens: int | None) -> None:
    """Whatever the prices and the rooms: the largest output that fits is chosen, none where not one token does."""
    clamped = whole.clamped_to(cost, tokens)

    granted = 0 if clamped is None else clamped.max_output_tokens
    more = whole.with_output(granted + 1)
    assert more is not None
    assert clamped is None or fits(clamped, cost, tokens)
    assert granted == whole.max_output_tokens or not fits(more, cost, tokens)


@given(ceilings(), rooms, rooms)
def test_a_clamp_changes_nothing_but_the_output(whole: Ceiling, cost: int | None, tokens: int | None) -> None:
    """Prompt, images and their cost stay as they are, and what fits stays whole."""
    clamped = whole.clamped_to(cost, tokens)

    assert (clamped == whole) == fits(whole, cost, tokens)
    if clamped is not None:
        output = {"max_output_tokens", "output_tokens", "cost_nanos"}
        assert whole._replace(**{name: getattr(clamped, name) for name in output}) == clamped


@given(ceilings(), st.integers(1, 100_000))
def test_steps_add_up_to_the_whole(whole: Ceiling, step: int) -> None:
    """Ceilings of ever more output never cost less, and the last one costs what the whole does."""
    bounds = [*range(step, whole.max_output_tokens, max(step, whole.max_output_tokens // 20)), whole.max_output_tokens]

    steps = [one for bound_ in bounds if (one := whole.with_output(bound_)) is not None]

    assert [one.cost_nanos for one in steps] == sorted(one.cost_nanos for one in steps)
    assert steps[-1] == whole


def test_a_clamp_keeps_within_the_budget_and_says_what_output_is_left() -> None:
    """Output shrinks until the call is affordable; a budget below the prompt affords nothing."""
    held = bound(text_request(generationConfig={"maxOutputTokens": 1_000}))
    budget = held.cost_nanos // 2

    clamped = held.clamped_to(budget)

    assert clamped is not None
    assert 0 < clamped.max_output_tokens < 1_000
    assert budget - 3_750 < clamped.cost_nanos <= budget
    assert held.clamped_to(held.fixed_nanos) is None
