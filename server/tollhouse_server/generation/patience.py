"""How long an upstream may keep silent before another target is asked, learned from how long answers have taken."""

from collections import deque

PAUSE_SECONDS = 60.0
"""A stream that has begun is given up after so long a silence. Nothing can take its place, and models run code and
search in its midst, so it gets more time than one that has not begun; but not as much as its caller may have."""

_REMEMBERED = 256
"""So many of the latest silences of a model and method are looked back on."""

_ENOUGH = 20
"""So many silences must have been seen before they say anything."""

_TIMES_THE_LONGEST = 3.0
"""An answer that takes so many times as long as the longest of late is taken for lost."""

_LEAST_SECONDS = 5.0
"""Nobody is given up sooner: models that think are slow to begin."""

_SHARE_OF_TIME_LEFT = 0.5
"""What the first of several targets may use of the caller's time, where too little is known of the model."""

_RELOOK = 32
"""The longest silence is looked up again after so many new ones."""


class _Seen:
    __slots__ = ("_count", "_silences", "longest")

    def __init__(self) -> None:
        self._silences: deque[float] = deque(maxlen=_REMEMBERED)
        self._count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self._silences.append(seconds)
        self._count += 1
        self.longest = max(self._silences) if self._count % _RELOOK == 0 else max(self.longest, seconds)

    @property
    def is_telling(self) -> bool:
        return len(self._silences) >= _ENOUGH


class Patience:
    """The silences seen by one worker: the waits for a whole unary answer, or for a stream's first chunk."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def note(self, model: str, method: str, seconds: float) -> None:
        """Take note of a silence that ended in an answer."""
        seen = self._seen.get((model, method))
        if seen is None:
            seen = self._seen[model, method] = _Seen()
        seen.add(seconds)

    def is_usual(self, model: str, method: str, seconds: float) -> bool:
        """Tell whether an answer that has not come in `seconds` says nothing yet: others have taken as long."""
        seen = self._seen.get((model, method))
        return seconds < (_LEAST_SECONDS if seen is None or not seen.is_telling else seen.longest)

    def seconds(self, model: str, method: str, *, seconds_left: float) -> float:
        """Return after how long a silence another target should be asked, where there is one.

        `seconds_left` is the caller's: what is left after the silence should do for another attempt.
        """
        half = seconds_left * _SHARE_OF_TIME_LEFT
        seen = self._seen.get((model, method))
        if seen is None or not seen.is_telling:
            return max(_LEAST_SECONDS, half)
        longest_seconds = seen.longest * _TIMES_THE_LONGEST
        return min(max(half, min(_LEAST_SECONDS, seconds_left - longest_seconds)), max(_LEAST_SECONDS, longest_seconds))
