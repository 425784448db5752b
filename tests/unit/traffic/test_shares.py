"""How a limit is divided among processes."""

from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.traffic.shares import Claim, allotments, share_of

AMOUNT = st.integers(0, 500)
CLAIM = st.builds(
    lambda used, part, demand, share: Claim(used, demand, share, used * part // 100),
    *(AMOUNT, st.integers(0, 100), AMOUNT, AMOUNT),
)
CLAIMS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), CLAIM, min_size=1, max_size=8)


@given(CLAIMS, st.integers(0, 2000))
def test_allotments_sum_to_the_limit_and_take_nothing_back(claims: dict[str, Claim], limit: int) -> None:
    """What was used and stays cannot be given back; all the rest is given to somebody."""
    kept = sum(claim.used - claim.leaving for claim in claims.values())

    parts = allotments(claims, limit)

    assert all(parts[key] >= claim.used - claim.leaving for key, claim in claims.items())
    assert sum(parts.values()) == max(limit, kept)


@given(CLAIMS, st.integers(1, 2000))
def test_nobody_gets_more_than_another_who_goes_short(claims: dict[str, Claim], limit: int) -> None:
    """Max-min: of what is divided, whoever gets less than he wants has at least as much as anybody else."""
    parts = allotments(claims, limit)

    more = {key: parts[key] - (claim.used - claim.leaving) for key, claim in claims.items()}
    short = [more[key] for key, claim in claims.items() if parts[key] < claim.demand]
    # One is what rounding may give to anybody.
    assert not short or max(more.values()) <= min(short) + 1


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


def test_a_process_that_wants_nothing_has_a_floor_to_begin_with() -> None:
    """Its first call must not wait for the next report."""
    claims = {"busy": Claim(100, 10_000, 1000), "idle": Claim(0, 0, 0)}

    assert allotments(claims, 1000)["idle"] == 125


def test_a_limit_of_one_belongs_to_who_wants_it() -> None:
    """Fractions of a call are nobody's."""
    assert allotments({"a": Claim(0, 0, 0), "b": Claim(0, 3, 0)}, 1) == {"a": 0, "b": 1}
