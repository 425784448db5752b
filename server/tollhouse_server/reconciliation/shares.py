"""An amount divided in proportion, exactly."""

from collections.abc import Mapping


def spread(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Divide `total` in proportion to weights above zero; the parts sum to it exactly, whatever its sign.

    Largest remainder: each part is rounded towards zero, and the units that are left go one each to those that lost
    most, of equal ones to the first in the mapping's order.
    """
    whole = sum(weights.values())
    parts = {key: divmod(abs(total) * weight, whole) for key, weight in weights.items()}
    left = abs(total) - sum(floor for floor, _ in parts.values())
    favoured = frozenset(sorted(parts, key=lambda key: -parts[key][1])[:left])
    sign = -1 if total < 0 else 1
    return {key: sign * (floor + (key in favoured)) for key, (floor, _) in parts.items()}
