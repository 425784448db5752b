"""How much of the traffic may be further attempts: a failing upstream must not be met with a multiple of its load."""

from collections.abc import Callable

_COST = 10
"""Units that a further attempt costs; a call deposits one. So further attempts are at most a tenth of the calls."""


class RetryBudget:
    """The balance of one process, in units of a tenth of an attempt; integers, since tenths have no exact float."""

    def __init__(
        self, *, start_attempts: int = 10, most_attempts: int = 100, on_refusal: Callable[[], None] = lambda: None
    ) -> None:
        """Start with `start_attempts` in hand and never save up more than `most_attempts`."""
        self._most = most_attempts * _COST
        self._balance = min(start_attempts * _COST, self._most)
        self._on_refusal = on_refusal

    @property
    def attempts_left(self) -> float:
        """Further attempts that the balance affords."""
        return self._balance / _COST

    def note_call(self) -> None:
        """Deposit for a call's first attempt."""
        self._balance = min(self._balance + 1, self._most)

    def may_retry(self) -> bool:
        """Take one further attempt from the balance, or say that it affords none."""
        if self._balance < _COST:
            self._on_refusal()
            return False
        self._balance -= _COST
        return True
