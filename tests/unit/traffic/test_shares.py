"""How a limit is divided among processes."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.traffic.shares import Claim, allotments, fair_parts, share_of

AMOUNT = st.integers(0, 500)
CLAIM = st.builds(
    lambda used, part, demand, share: Claim(used, demand, share, used * part // 100),
    *(AMOUNT, st.integers(0, 100), AMOUNT, AMOUNT),
)
CLAIMS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), CLAIM, min_size=1, max_size=8)


@given(CLAIMS, st.integers(0, 2000))
def test_a_step_takes_nothing_back_and_gives_all_that_is_free_to_who_is_short(
    claims: dict[str, Claim], limit: int
) -> None:
    """What was used and stays cannot be given back; nothing that is held is given twice."""
    held = {key: max(claim.used, claim.share) for key, claim in claims.items()}
    fair = fair_parts(claims, limit)

    steps = allotments(claims, limit)

    assert all(steps[key] >= claim.used - claim.leaving for key, claim in claims.items())
    assert sum(steps.values()) <= max(limit, sum(held.values()))
    wanted = sum(max(fair[key] - held[key], 0) for key in claims)
    given_out = sum(max(steps[key] - held[key], 0) for key in claims)
    # One for each is what rounding may leave.
    assert given_out >= min(limit - sum(held.values()), wanted) - len(claims)


@given(CLAIMS, st.integers(0, 2000))
def test_nobody_gets_more_than_another_who_goes_short(claims: dict[str, Claim], limit: int) -> None:
    """Max-min: whoever comes to less than he wants comes to as much as anybody else; nothing is left over."""
    parts = fair_parts(claims, limit)

    short = [parts[key] for key, claim in claims.items() if parts[key] < claim.demand - 1e-6]
    assert not short or max(parts.values()) <= min(short) + 1e-6
    assert sum(parts.values()) == pytest.approx(limit)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2000)), min_size=2, max_size=5),
    st.integers(50, 1000),
)
def test_all_come_to_their_parts_within_two_windows(processes: list[tuple[int, int]], limit: int) -> None:
    """Whatever each had used before: with a window of ten seconds, after twenty."""
    total = max(1, sum(before for before, _ in processes))
    windows = {str(number): deque([before * limit // total // 10] * 10) for number, (before, _) in enumerate(processes)}
    demands = {str(number): demand for number, (_, demand) in enumerate(processes)}
    claims = {key: Claim(sum(window), demands[key], sum(window)) for key, window in windows.items()}

    for _ in range(20):
        for key, window in windows.items():
            others = {other: claim for other, claim in claims.items() if other != key}
            claims[key] = claims[key]._replace(used=sum(window), leaving=window[0])
            share = share_of(key, allotments(claims, limit)[key], others, limit)
            window.popleft()
            window.append(max(0, min(share, demands[key]) - sum(window)))
            claims[key] = Claim(sum(window), demands[key], share)
            assert sum(max(claim.used, claim.share) for claim in claims.values()) <= limit

    fair = fair_parts({key: Claim(0, demand, 0) for key, demand in demands.items()}, limit)
    for key, window in windows.items():
        assert sum(window) >= 0.85 * min(fair[key], demands[key]) - len(windows)


@given(CLAIMS, st.integers(0, 2000))
def test_shares_that_all_take_in_turn_stay_within_the_limit(claims: dict[str, Claim], limit: int) -> None:
    """A share that somebody still holds is not taken before he has given it up."""
    now = dict(claims)
    within = sum(max(claim.used, claim.share) for claim in now.values()) <= limit

    for _ in range(3):
        for key, claim in list(now.items()):
            now[key] = claim._replace(share=max(claim.used, share_of(key, allotments(now, limit)[key], now, limit)))
            held = sum(max(claim.used, claim.share) for claim in now.values())
            assert not within or held <= limit
        within = held <= limit

    assert held <= max(limit, sum(claim.used for claim in claims.values()))


@pytest.mark.parametrize("count", [2, 8, 19])
def test_what_others_have_taken_since_they_spoke_is_not_divided_once_more(count: int) -> None:
    """Each works it out once a second, from reports of before the others did."""
    limit, used = 600, 150 // count
    shares = dict.fromkeys(map(str, range(count)), used)
    for _ in range(4):
        said = dict(shares)
        for key in shares:
            others = {other: Claim(used, 2000, said[other]) for other in shares if other != key}
            others["busy"] = Claim(300, 2000, 300)
            own = Claim(used, 2000, shares[key])
            shares[key] = share_of(key, allotments({**others, key: own}, limit)[key], others, limit)
        assert limit - 300 - count <= sum(shares.values()) <= limit - 300


def test_a_process_that_wants_nothing_has_a_floor_to_begin_with() -> None:
    """As soon as the busy one has given it up."""
    busy, idle = Claim(100, 10_000, 1000), Claim(0, 0, 0)

    busy = busy._replace(share=allotments({"busy": busy, "idle": idle}, 1000)["busy"])

    assert allotments({"busy": busy, "idle": idle}, 1000)["idle"] == 125


def test_a_limit_of_one_belongs_to_who_wants_it() -> None:
    """Fractions of a call are nobody's."""
    assert allotments({"a": Claim(0, 0, 0), "b": Claim(0, 3, 0)}, 1) == {"a": 0, "b": 1}
