"""A place: the right of one call to go to its target, from when it was chosen until it has ended."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tollhouse_server.routing.targets import Target
from tollhouse_server.traffic.outlets import Outlet
from tollhouse_server.traffic.usage_window import IMAGES, SPEND, TOKENS, Slot
from tollhouse_server.traffic.verdicts import Verdict

if TYPE_CHECKING:
    from tollhouse_server.traffic.traffic import Traffic


class Place:
    """A place at `target`, taken from the account's buckets. The first method called ends it, later ones do nothing."""

    __slots__ = ("_amounts", "_begun_at", "_is_open", "_outlet", "_slots", "_traffic", "target")

    def __init__(
        self,
        target: Target,
        outlet: Outlet,
        amounts: list[int],
        slots: tuple[Slot, Slot | None],
        traffic: "Traffic",
        *,
        begun_at: float,
    ) -> None:
        self.target = target
        self._outlet = outlet
        self._amounts = amounts
        self._slots = slots
        self._traffic = traffic
        self._begun_at = begun_at
        self._is_open = True

    def succeeded(
        self,
        seconds: float,
        *,
        input_tokens: int | None = None,
        images: int | None = None,
        cost_nanos: int | None = None,
    ) -> None:
        """Note that the call was served in `seconds`, and what it really used; None leaves the estimate standing."""
        if self._is_open:
            amounts = self._amounts
            # What comes before and after the exchange takes of the caller's time, too.
            now = self._traffic.now
            self._outlet.bucket.served(max(seconds, now - self._begun_at), begun_at=self._begun_at, now=now)
            self._outlet.bucket.correct(
                self._slots,
                tokens=0 if input_tokens is None else input_tokens - amounts[TOKENS],
                images=0 if images is None else images - amounts[IMAGES],
                nanos=0 if cost_nanos is None else cost_nanos - amounts[SPEND],
            )
            self._end(Verdict.SUCCESS)

    def failed(self) -> None:
        """Note a failure that counts for the breaker: 500, 504, no connection, a broken exchange.

        It may have been served, so that its estimate stays counted.
        """
        if self._is_open:
            self._end(Verdict.FAILURE)

    def overloaded(self) -> bool:
        """Note a refusal for overload (503), which costs nothing; True when fewer calls at a time are the answer to it.

        Otherwise it is a failure that counts for the breaker.
        """
        if not self._is_open:
            return False
        congestion, others = self._outlet.bucket.congestion, self._outlet.bucket.in_flight - 1
        is_load = congestion.refused(others=others, begun_at=self._begun_at, now=self._traffic.now)
        self._uncount()
        self._end(Verdict.IGNORED if is_load else Verdict.FAILURE)
        return is_load

    def ignored(self) -> None:
        """Note an end that says nothing of the target's health: a 400, 403, 404, or a caller who hung up."""
        if self._is_open:
            self._end(Verdict.IGNORED)

    def exhausted(self, retry_after_seconds: float | None, violations: Sequence[Mapping[str, Any]]) -> None:
        """Note a 429 with RetryInfo's delay and QuotaFailure's violations: the account cools down for the model."""
        if self._is_open:
            bucket = self._outlet.bucket
            self._uncount()
            self._traffic.buckets.exhaust(bucket, retry_after_seconds, violations, begun_at=self._begun_at)
            self._end(Verdict.IGNORED)

    def release(self) -> None:
        """Give the place back unused: nothing was sent."""
        if self._is_open:
            self._uncount()
            self._outlet.bucket.give_back(self._slots)
            self._end(Verdict.IGNORED)

    def _uncount(self) -> None:
        amounts = self._amounts
        self._outlet.bucket.correct(
            self._slots, tokens=-amounts[TOKENS], images=-amounts[IMAGES], nanos=-amounts[SPEND]
        )

    def _end(self, verdict: Verdict) -> None:
        self._is_open = False
        traffic, outlet = self._traffic, self._outlet
        outlet.bucket.ended(self._slots)
        traffic.breakers.record(outlet.key, verdict, traffic.now - self._begun_at)
        traffic.ended(outlet.bucket)
