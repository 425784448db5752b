"""How many calls at a time an upstream takes that only says when it is overloaded: learned from what it refuses.

An upstream that answers 503, or 429 without a word of quotas, while it serves other calls is not ill: it has too many.
To send it fewer costs nothing, to open its breaker costs all that it could serve. So a refusal cuts the number to a
little less than what is still being served, and it grows again while it is used up: the faster, the longer nothing was
refused (additive increase, multiplicative decrease: Chiu and Jain 1989).

Each process learns for itself, but processes are not refused alike: of few calls at a time a refusal takes away a whole
one, so that who has few may come to none, while others are served. So they tell each other what they have learned, and
those that need more than they have come nearer to each other with each report.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

UNLIMITED: Final = float("inf")

_CUT = 0.95
_GROWTH_PER_SECOND = 0.5
_GROWTH_PER_SECOND_SQUARED = 0.25
_LONGEST_STEP_SECONDS = 1.0
_SERVING_SECONDS = 60.0
"""An upstream that has served a call of late is up."""
_FORGOTTEN_SECONDS = 600.0
_NEARER_PER_REPORT = 0.5
"""By which part of what lies between it and the others a process comes nearer to them: reports cross, so not by all."""


class Learned(NamedTuple):
    """How many calls at a time an upstream takes of a process, None: no limit; and how many it has use for."""

    limit: float | None
    demand: int

    @property
    def is_short(self) -> bool:
        """Tell whether the process has use for more than it may send."""
        return self.limit is not None and self.demand + 1 > self.limit


class Congestion:
    """What one upstream takes, as far as this process knows: `limit` calls at a time."""

    __slots__ = ("_cut_at", "_grown_at", "_served_at", "_served_begun_at", "limit")

    def __init__(self) -> None:
        self.limit = UNLIMITED
        self._cut_at = float("-inf")
        self._grown_at = 0.0
        self._served_at = float("-inf")
        self._served_begun_at = float("-inf")

    def room(self, in_flight: int) -> float:
        """Return which part is free, and 0 when no further call fits."""
        if self.limit == UNLIMITED:
            return 1.0
        return (self.limit - in_flight) / self.limit if in_flight + 1 <= self.limit else 0.0

    def refused(self, *, others: int, begun_at: float, now: float) -> bool:
        """Note a refusal for overload of a call begun at `begun_at` beside which `others` are in flight.

        True says that the load explains it. False says that the upstream has served none since it was last sent fewer,
        so that it may as well be down.
        """
        is_same_overload = begun_at < self._cut_at
        is_up = self._served_begun_at > self._cut_at and now - self._served_at < _SERVING_SECONDS
        if is_same_overload:
            # Sent before it was known; what is left when all of them are gone is what the upstream takes.
            self.limit = max(1.0, min(self.limit, float(others)))
        else:
            self.limit = max(1.0, min(self.limit, float(others)) * _CUT)
            self._cut_at = self._grown_at = now
        return is_same_overload or is_up

    def served(self, *, others: int, begun_at: float, now: float) -> None:
        """Note that a call was served beside which `others` are in flight."""
        self._served_at, self._served_begun_at = now, max(self._served_begun_at, begun_at)
        if self.limit == UNLIMITED:
            return
        calm_seconds = now - self._cut_at
        if calm_seconds >= _FORGOTTEN_SECONDS:
            self.limit = UNLIMITED
        elif others + 2 > self.limit:
            # Who does not use what there is learns nothing of what more there is.
            seconds = min(now - self._grown_at, _LONGEST_STEP_SECONDS)
            self.limit += (_GROWTH_PER_SECOND + _GROWTH_PER_SECOND_SQUARED * calm_seconds) * seconds
        self._grown_at = now

    def learned(self, demand: int) -> Learned:
        """Return what to tell the others, of a process that has use for `demand` calls at a time."""
        return Learned(None if self.limit == UNLIMITED else self.limit, demand)

    def heard(self, own: Learned, others: Sequence[Learned]) -> None:
        """Come nearer to what others have learned, if one is short as they are; who is not keeps what he has.

        What those that are short have together stays nearly the same.
        """
        if own.is_short:
            limits = [one.limit for one in (own, *others) if one.limit is not None and one.is_short]
            self.limit += (sum(limits) / len(limits) - self.limit) * _NEARER_PER_REPORT
