"""How processes share an account's limit: computed alike by everybody from what all have said, without a coordinator.

Max-min fair by demand: a process gets what it wants as long as others do not want what is left, and nobody gets less
than another because he wanted more. What was used in the running window cannot be given back before the window has
passed over it, so that what is divided is the room that there is and that which the next second brings. A share that
somebody still holds is not taken before he has given it up: the sum stays within the limit while shares move.
"""

from collections.abc import Mapping
from typing import NamedTuple

_FLOOR = 0.25
"""Of an even part, what a process without demand may begin with at once."""

_HALVINGS = 40


class Claim(NamedTuple):
    """What a process has used in the running window, wants in all, and may use by the share that it holds.

    `leaving` is what of the used will be free in a second: whoever holds it must not have it again before the others.
    """

    used: float
    demand: float
    share: float
    leaving: float = 0.0


def share_of(process: str, allotment: int, claims: Mapping[str, Claim], limit: int) -> int:
    """Return what `process` may use of its allotment from now on: what nobody else holds."""
    held_elsewhere = sum(max(claim.used, claim.share) for key, claim in claims.items() if key != process)
    return int(max(0, min(allotment, limit - held_elsewhere)))


def expected(claims: Mapping[str, Claim], allotted: Mapping[str, int]) -> Mapping[str, Claim]:
    """Return the claims as they will be when all have heard of the room that was left to them the last time.

    Until then it looks free, and who divided it anew would keep half of what he has given up.
    """
    return {
        key: claim._replace(used=max(claim.used, min(allotted.get(key, 0), claim.demand)))
        for key, claim in claims.items()
    }


def allotments(claims: Mapping[str, Claim], limit: int) -> dict[str, int]:
    """Divide `limit` among processes, in whole numbers; the sum is `limit` unless more than that stays in use."""
    floor = limit * _FLOOR / len(claims)
    kept = {key: claim.used - claim.leaving for key, claim in claims.items()}
    more = {key: max(claim.demand, floor) - kept[key] for key, claim in claims.items()}
    more = {key: max(amount, 0.0) for key, amount in more.items()}
    free = limit - sum(kept.values())
    spare = free - sum(more.values())
    if spare >= 0:
        parts = {key: kept[key] + more[key] + spare / len(claims) for key in claims}
    else:
        level = _level(more, free)
        parts = {key: kept[key] + min(level, more[key]) for key in claims}
    return _whole(parts, claims, limit)


def _level(wanted: Mapping[str, float], free: float) -> float:
    """Return the height to which all are filled, up to what they want, to sum to `free`."""
    low, high = 0.0, max(free, 0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(min(middle, amount) for amount in wanted.values()) > free:
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
