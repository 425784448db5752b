"""What was used of an account: sums over rolling windows, over the day, and what is in flight.

Windows are exact in the safe direction: they move in whole seconds and never forget a call before it is as old as they
are long. A call is counted when it begins, with its estimate, and corrected in the second in which it began.
"""

from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from tollhouse_server.routing.targets import AccountMetric
from tollhouse_server.traffic.days import PacificDay

METRICS: Final = tuple(AccountMetric)
"""The order in which amounts stand wherever they are a list."""

NAMES: Final = tuple(metric.value for metric in METRICS)
"""The same as plain text, for reports."""

REQUESTS: Final = METRICS.index(AccountMetric.REQUESTS_PER_MINUTE)
TOKENS: Final = METRICS.index(AccountMetric.INPUT_TOKENS_PER_MINUTE)
DAY: Final = METRICS.index(AccountMetric.REQUESTS_PER_DAY)
IMAGES: Final = METRICS.index(AccountMetric.IMAGES_PER_MINUTE)
SPEND: Final = METRICS.index(AccountMetric.SPEND_PER_10_MINUTES)
IN_FLIGHT: Final = METRICS.index(AccountMetric.CONCURRENT_CALLS)

_MINUTE_SECONDS = 60
_SPEND_SECONDS = 600

WINDOW_SECONDS: Final = {REQUESTS: 60, TOKENS: 60, IMAGES: 60, SPEND: 600, IN_FLIGHT: 10}
"""For how long what a process used counts after its last word. A dead one's connections went with it: servers that
limit calls at a time give up those whose caller has gone, and need a moment for that."""


class Slot:
    """What was taken in one second."""

    __slots__ = ("day", "images", "in_minute", "in_spend", "nanos", "requests", "second", "tokens")

    def __init__(self, second: int, day: str) -> None:
        self.second = second
        self.day = day
        self.requests = 0
        self.tokens = 0
        self.images = 0
        self.nanos = 0
        self.in_minute = True
        self.in_spend = True


class UsageWindow:
    """The use of one account for one model, or for all of them, by this process."""

    __slots__ = ("_day", "_days", "_minute", "_peak", "_peak_before", "_slot", "_spend", "second", "sums")

    def __init__(self, days: PacificDay) -> None:
        self.sums = [0] * len(METRICS)
        self.second = -1
        self._days = days
        self._day = ""
        self._slot: Slot | None = None
        self._minute: deque[Slot] = deque()
        self._spend: deque[Slot] = deque()
        self._peak = 0
        self._peak_before = 0

    def advance(self, second: int) -> None:
        """Forget what is older than the windows; to be called before `sums` is read in a new second."""
        self.second = second
        self._forget_minute(second - _MINUTE_SECONDS)
        spend = self._spend
        while spend and spend[0].second < second - _SPEND_SECONDS:
            old = spend.popleft()
            old.in_spend = False
            self.sums[SPEND] -= old.nanos
        if (today := self._days.today()) != self._day:
            self._day = today
            self.sums[DAY] = 0

    def _forget_minute(self, before: int) -> None:
        minute, sums = self._minute, self.sums
        while minute and minute[0].second < before:
            old = minute.popleft()
            old.in_minute = False
            sums[REQUESTS] -= old.requests
            sums[TOKENS] -= old.tokens
            sums[IMAGES] -= old.images

    def take(self, second: int, amounts: Sequence[int]) -> Slot:
        """Count a call that begins; the slot is what `correct` and `give_back` want."""
        if second != self.second:
            self.advance(second)
        slot = self._slot
        if slot is None or slot.second != second:
            slot = self._begin_slot(second)
        sums = self.sums
        sums[REQUESTS] += 1
        sums[TOKENS] += amounts[TOKENS]
        sums[DAY] += 1
        sums[IMAGES] += amounts[IMAGES]
        sums[SPEND] += amounts[SPEND]
        sums[IN_FLIGHT] += 1
        self._peak = max(self._peak, sums[IN_FLIGHT])
        slot.requests += 1
        slot.tokens += amounts[TOKENS]
        slot.images += amounts[IMAGES]
        slot.nanos += amounts[SPEND]
        return slot

    def _begin_slot(self, second: int) -> Slot:
        slot = self._slot = Slot(second, self._day)
        self._minute.append(slot)
        self._spend.append(slot)
        return slot

    def correct(self, slot: Slot, *, tokens: int, images: int, nanos: int) -> None:
        """Add what a call used more than it took (less: negative), where its second still counts."""
        sums = self.sums
        if slot.in_minute:
            slot.tokens += tokens
            slot.images += images
            sums[TOKENS] += tokens
            sums[IMAGES] += images
        if slot.in_spend:
            slot.nanos += nanos
            sums[SPEND] += nanos

    def give_back(self, slot: Slot) -> None:
        """Count a request off again that was never sent."""
        if slot.in_minute:
            slot.requests -= 1
            self.sums[REQUESTS] -= 1
        if slot.day == self._day and self.sums[DAY] > 0:
            self.sums[DAY] -= 1

    def leaving(self) -> list[int]:
        """Return what of the sums will be free in a second: what the windows pass over, and every call under way."""
        leaving = [0] * len(METRICS)
        for slot in takewhile(lambda slot: slot.second <= self.second - _MINUTE_SECONDS, self._minute):
            leaving[REQUESTS] += slot.requests
            leaving[TOKENS] += slot.tokens
            leaving[IMAGES] += slot.images
        for slot in takewhile(lambda slot: slot.second <= self.second - _SPEND_SECONDS, self._spend):
            leaving[SPEND] += slot.nanos
        leaving[IN_FLIGHT] = self.sums[IN_FLIGHT]
        return leaving

    @property
    def peak(self) -> int:
        """Return how many calls were under way at the most since the last but one `next_peak`.

        How many there are at one moment says little of how many places are needed.
        """
        return max(self._peak, self._peak_before)

    def next_peak(self) -> None:
        """Begin a new peak; to be called about once a second."""
        self._peak_before, self._peak = self._peak, self.sums[IN_FLIGHT]

    def frees_at(self, metric: int) -> float:
        """Return when the window of a metric forgets something next; infinity where time alone frees nothing."""
        if metric == DAY:
            return self._days.ends_at()
        if metric == SPEND:
            return self._spend[0].second + _SPEND_SECONDS + 1 if self._spend else float("inf")
        if metric == IN_FLIGHT or not self._minute:
            return float("inf")
        return self._minute[0].second + _MINUTE_SECONDS + 1
