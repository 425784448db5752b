"""What calls really use of their worst case, learned from those that have ended, by project and model.

Each process learns by itself and begins with the worst case, which is never too low.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from tollhouse_server.ledger.terms import EVERYTHING, WHOLE, Amounts, CallTerms, Shares

_REMEMBERED_CALLS = 128
_CALLS_TO_TRUST = 16
_PAIRS_KEPT = 20_000

_QUANTILE_PERMILLE = 500
"""Half of the calls use no more than is expected of them. Nine in ten was tried: one dear call in flight then kept a
fifth of a budget unused. The overshoot is bounded by the worst case, whatever is expected."""

_Pair: TypeAlias = tuple[str, str, str]


@dataclass(slots=True)
class _Learned:
    calls: deque[tuple[Amounts, Amounts]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_CALLS))
    shares: Shares = EVERYTHING
    calls_until_look: int = _CALLS_TO_TRUST


class Expectations:
    """Remembers the last calls of each (tenant, project, model), the longest unused pair forgotten first."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[_Pair, _Learned] = OrderedDict()

    def of(self, terms: CallTerms) -> Shares:
        """Return what a call will probably use of its ceiling: all of it until enough such calls have ended."""
        learned = self._pairs.get((terms.scope.tenant_id, terms.scope.project_id, terms.model))
        return EVERYTHING if learned is None else learned.shares

    def learn(self, terms: CallTerms, actual: Amounts) -> None:
        """Remember what a call of this ceiling has used."""
        pair = (terms.scope.tenant_id, terms.scope.project_id, terms.model)
        learned = self._pairs.get(pair)
        if learned is None:
            learned = self._pairs[pair] = _Learned()
            if len(self._pairs) > _PAIRS_KEPT:
                self._pairs.popitem(last=False)
        learned.calls.append((terms.ceiling, actual))
        learned.calls_until_look -= 1
        if not learned.calls_until_look:
            # After 16 calls, 32, 64, 128 and then every 128: what is known of a few is soon looked at again.
            learned.calls_until_look = len(learned.calls)
            learned.shares = _quantiles(learned.calls)
            self._pairs.move_to_end(pair)


def _quantiles(calls: Iterable[tuple[Amounts, Amounts]]) -> Shares:
    """Return the share of each metric that the quantile of the calls does not pass."""
    shares = [tuple(map(_share, ceiling, actual)) for ceiling, actual in calls]
    position = (len(shares) * _QUANTILE_PERMILLE - 1) // 1000
    return Shares(*(sorted(column)[position] for column in zip(*shares, strict=True)))


def _share(most: int, used: int) -> int:
    return min(WHOLE, used * WHOLE // most) if most else 0
