"""Above which difference a month cannot be closed without somebody who accepts it; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tollhouse_server.reconciliation.variances import Compared, LineKey

MILLION: Final = 1_000_000
POLICY_NAME: Final = "reconciliationPolicy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationPolicy:
    """The platform's bounds. `share_millionths` is of the larger of what was booked and billed.

    `rounding_nanos` is how much rounding one line of Google's bill can make.
    """

    absolute_nanos: int
    share_millionths: int
    rounding_nanos: int
    version: int

    def exceeds(self, unexplained_nanos: int, whole_nanos: int) -> bool:
        """Tell whether a difference is above both bounds, against the whole that it is a part of."""
        size = abs(unexplained_nanos)
        return size > self.absolute_nanos and size * MILLION > abs(whole_nanos) * self.share_millionths


def blocking_lines(policy: ReconciliationPolicy, lines: Iterable[Compared]) -> frozenset[LineKey]:
    """Return the lines that block: each that is above the bounds by itself, and the others where they are together."""
    unexplained = [line for line in lines if line.unexplained_nanos]
    above = {
        line.key
        for line in unexplained
        if policy.exceeds(line.unexplained_nanos, max(line.booked_nanos, line.billed_nanos))
    }
    small = [line for line in unexplained if line.key not in above]
    whole = max(sum(line.booked_nanos for line in small), sum(line.billed_nanos for line in small))
    if policy.exceeds(sum(abs(line.unexplained_nanos) for line in small), whole):
        above |= {line.key for line in small}
    return frozenset(above)
