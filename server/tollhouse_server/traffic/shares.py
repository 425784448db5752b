"""How processes share an account's limit: computed alike by everybody from what all have said, without a coordinator.

Max-min fair by demand: a process gets what it wants as long as others do not want what is left, and nobody gets less
than another because he wanted more. What was used in the running window cannot be given back, and a share that somebody
still holds is not taken before he has given it up, so that the sum stays within the limit while shares move.
"""

from collections.abc import Mapping
from typing import NamedTuple

_FLOOR = 0.25
"""Of an even part, what a process without demand may begin with at once."""

_HALVINGS = 40


class Claim(NamedTuple):
    """What a process has used in the running window, wants in all, and may use by the share that it holds."""

    used: float
    demand: float
    share: float


def share_of(process: str, claims: Mapping[str, Claim], limit: int) -> int:
    """Return what `process` may use from now on."""
    fair = allotments(claims, limit)[process]
    held_elsewhere = sum(max(claim.used, claim.share) for key, claim in claims.items() if key != process)
    return int(max(0, min(fair, limit - held_elsewhere)))


def allotments(claims: Mapping[str, Claim], limit: int) -> dict[str, int]:
    """Divide `limit` among processes, in whole numbers; the sum is `limit` unless more than that is used already."""
    floor = limit * _FLOOR / len(claims)
    least = {key: claim.used for key, claim in claims.items()}
    wanted = {key: max(claim.used, claim.demand, floor) for key, claim in claims.items()}
    spare = limit - sum(wanted.values())
    if spare >= 0:
        parts = {key: amount + spare / len(claims) for key, amount in wanted.items()}
    else:
        level = _level(least, wanted, limit)
        parts = {key: min(max(level, least[key]), wanted[key]) for key in claims}
    return _whole(parts, claims, limit)


def _level(least: Mapping[str, float], wanted: Mapping[str, float], limit: int) -> float:
    """Return the height to which all are filled, between what they have and what they want, to sum to `limit`."""
    low, high = 0.0, float(limit)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(min(max(middle, least[key]), wanted[key]) for key in wanted) > limit:
            high = middle
        else:
            low = middle
    return low


def _whole(parts: Mapping[str, float], claims: Mapping[str, Claim], limit: int) -> dict[str, int]:
    """Round down, and give what that leaves to those who want more than that: a limit of one belongs to somebody."""
    whole = {key: int(part + 1e-6) for key, part in parts.items()}
    left = limit - sum(whole.values())
    for key in sorted(claims, key=lambda key: (whole[key] >= claims[key].demand, whole[key], -claims[key].demand, key)):
        if left <= 0:
            break
        whole[key] += 1
        left -= 1
    return whole
