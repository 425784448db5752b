"""What calls really use of their worst case, learned from those that have ended, by project and model.

Each process learns by itself and begins with the worst case, which is never too low.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TypeAlias

from tollhouse_server.ledger.terms import Amounts, CallTerms

_REMEMBERED_CALLS = 128
_CALLS_TO_TRUST = 16
_CALLS_BETWEEN_LOOKS = 16
_PAIRS_KEPT = 20_000

_QUANTILE_PERMILLE = 900
"""Nine calls in ten use no more than is expected of them: elastic limits are then passed seldom, and by little."""

_WHOLE = 1_000_000
"""Shares are in millionths of the ceiling."""

_Pair: TypeAlias = tuple[str, str, str]


@dataclass(slots=True)
class _Learned:
    shares: deque[tuple[int, ...]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_CALLS))
    expected: tuple[int, ...] | None = None
    calls_since_look: int = 0


class Expectations:
    """Remembers the last calls of each (tenant, project, model), the longest unused pair forgotten first."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[_Pair, _Learned] = OrderedDict()

    def of(self, terms: CallTerms) -> Amounts:
        """Return what a call will probably use: its ceiling until enough such calls have ended."""
        learned = self._pairs.get(_pair(terms))
        if learned is None or learned.expected is None:
            return terms.ceiling
        # Rounded up, so that what is expected of many small calls does not vanish.
        return Amounts(
            *(-(-most * share // _WHOLE) for most, share in zip(terms.ceiling, learned.expected, strict=True))
        )

    def learn(self, terms: CallTerms, actual: Amounts) -> None:
        """Remember how much of its ceiling a call has used."""
        pair = _pair(terms)
        learned = self._pairs.get(pair)
        if learned is None:
            learned = self._pairs[pair] = _Learned()
            if len(self._pairs) > _PAIRS_KEPT:
                self._pairs.popitem(last=False)
        else:
            self._pairs.move_to_end(pair)
        learned.shares.append(
            tuple(
                min(_WHOLE, used * _WHOLE // most) if most else 0
                for used, most in zip(actual, terms.ceiling, strict=True)
            )
        )
        learned.calls_since_look += 1
        if learned.calls_since_look >= _CALLS_BETWEEN_LOOKS and len(learned.shares) >= _CALLS_TO_TRUST:
            learned.expected = _quantiles(learned.shares)
            learned.calls_since_look = 0


def _pair(terms: CallTerms) -> _Pair:
    return (terms.scope.tenant_id, terms.scope.project_id, terms.model)


def _quantiles(shares: deque[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the share of each metric that the quantile of the calls does not pass."""
    position = (len(shares) * _QUANTILE_PERMILLE - 1) // 1000
    return tuple(sorted(column)[position] for column in zip(*shares, strict=True))
