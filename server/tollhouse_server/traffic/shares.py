"""How processes share an account's limit: computed alike by everybody from what all have said, without a coordinator.

Max-min fair by demand: a process comes to what it wants as long as others do not want what is left, and nobody comes to
less than another because he wanted more. What was used in the running window cannot be given back before the window
has passed over it. So who has more than his part goes on with some half of what comes free to him until he is there;
who has less takes what there is. A share that somebody still holds is not taken before he has given it up: the sum
stays within the limit while shares move.
"""

from collections.abc import Mapping
from typing import NamedTuple

_FLOOR = 0.25
"""Of an even part, what a process without demand may begin with at once."""

_GIVEN_UP = 0.55
"""Of what comes free to a process that has too much. With all of it its callers would wait until it is down to its
part; it is a little more than half, since the others hear of it a second later."""

_HALVINGS = 40


class Claim(NamedTuple):
    """What a process has used in the running window, wants in all, and may use by the share that it holds.

    `leaving` is what of the used will be free in a second.
    """

    used: float
    demand: float
    share: float
    leaving: float = 0.0

    @property
    def held(self) -> float:
        """What nobody else may take."""
        return max(self.used, self.share)


def share_of(process: str, allotment: int, claims: Mapping[str, Claim], limit: int) -> int:
    """Return what `process` may use of its allotment from now on: what nobody else holds."""
    held_elsewhere = sum(claim.held for key, claim in claims.items() if key != process)
    return int(max(0, min(allotment, limit - held_elsewhere)))


def allotments(claims: Mapping[str, Claim], limit: int) -> dict[str, int]:
    """Return what each process may have next on its way to its part of `limit`.

    It does not depend on what those who are short hold: who works it out again, before he has heard that others have
    taken what was theirs, gets the same.
    """
    parts = _whole(fair_parts(claims, limit), claims)
    ahead = {key: claim for key, claim in claims.items() if claim.held >= parts[key]}
    short = {key: parts[key] for key in claims if key not in ahead}
    free = limit - sum(claim.held for claim in ahead.values())
    level = _level(short, free, at_least={key: claims[key].used for key in short})
    steps = {key: max(parts[key], int(claim.used - claim.leaving * _GIVEN_UP)) for key, claim in ahead.items()}
    return steps | {key: int(min(part, max(claims[key].used, level)) + 1e-6) for key, part in short.items()}


def fair_parts(claims: Mapping[str, Claim], limit: int) -> dict[str, float]:
    """Divide `limit` by what all want; what nobody wants is divided evenly."""
    floor = limit * _FLOOR / len(claims)
    wanted = {key: max(claim.demand, floor) for key, claim in claims.items()}
    spare = limit - sum(wanted.values())
    if spare >= 0:
        return {key: amount + spare / len(claims) for key, amount in wanted.items()}
    level = _level(wanted, limit, at_least={})
    return {key: min(level, amount) for key, amount in wanted.items()}


def _level(wanted: Mapping[str, float], free: float, *, at_least: Mapping[str, float]) -> float:
    """Return the height to which all are filled, up to what they want, to sum to `free`, or more where all have it."""
    low, high = 0.0, max(free, 0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(max(at_least.get(key, 0.0), min(middle, amount)) for key, amount in wanted.items()) > free:
            high = middle
        else:
            low = middle
    return low


def _whole(parts: Mapping[str, float], claims: Mapping[str, Claim]) -> dict[str, int]:
    """Round down, and give what that leaves to those who want more than that: a limit of one belongs to somebody."""
    whole = {key: int(part + 1e-6) for key, part in parts.items()}
    left = round(sum(parts.values())) - sum(whole.values())
    order = sorted(claims, key=lambda key: (whole[key] >= claims[key].demand, whole[key], -claims[key].demand, key))
    for key in order[: max(left, 0)]:
        whole[key] += 1
    return whole
