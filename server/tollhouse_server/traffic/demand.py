"""What calls would take of a bucket that wait for a place in it, or went without one: a share is asked for it.

Those who were told to come back count as well, as many as in a minute. A process that has little, and so lets hardly
anybody wait, would otherwise seem to want little, and keep it.
"""

from collections.abc import Sequence
from math import exp

from tollhouse_server.traffic.usage_window import IN_FLIGHT, METRICS

_COUNTED_SECONDS = 60.0
_UNKNOWN_CALL_SECONDS = 1.0
_REMEMBERED_SECONDS = 10.0
"""Where hardly anybody waits, in some seconds nobody is turned away."""


class Demand:
    """Amounts in the order of `METRICS`: of those who are `waiting`, and of those who went without a place."""

    __slots__ = ("_gone", "_gone_per_second", "_since", "waiting")

    def __init__(self) -> None:
        self.waiting = [0] * len(METRICS)
        self._gone = [0] * len(METRICS)
        self._gone_per_second = [0.0] * len(METRICS)
        self._since: float | None = None

    def turn_away(self, amounts: Sequence[int]) -> None:
        """Count a call that goes without a place."""
        for metric, amount in enumerate(amounts):
            self._gone[metric] += amount

    def pass_time(self, now: float) -> None:
        """Take who went since the last call of this for what is usual by and by; to be called about once a second."""
        seconds = 0.0 if self._since is None else now - self._since
        self._since = now
        if seconds:
            new = 1.0 - exp(-seconds / _REMEMBERED_SECONDS)
            self._gone_per_second = [
                before + (gone / seconds - before) * new
                for before, gone in zip(self._gone_per_second, self._gone, strict=True)
            ]
            self._gone = [0] * len(METRICS)

    def amounts(self, call_seconds: float) -> list[int]:
        """Return what all of them would take, of calls under way by how long one usually takes (0: not known yet)."""
        at_a_time = call_seconds or _UNKNOWN_CALL_SECONDS
        return [
            waiting + int(per_second * (at_a_time if metric == IN_FLIGHT else _COUNTED_SECONDS))
            for metric, (waiting, per_second) in enumerate(zip(self.waiting, self._gone_per_second, strict=True))
        ]
