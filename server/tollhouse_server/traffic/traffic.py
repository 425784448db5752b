"""Generation's only door to the room: a call gets a place at one of its targets, now or after its turn in the queue."""

from collections.abc import Mapping, Sequence
from typing import Any

from tollhouse_server.routing.targets import Target
from tollhouse_server.traffic.terms import PlaceRequest


class Place:
    """A place at a target, taken from the account's buckets; exactly one of its methods ends it."""

    __slots__ = ("target",)

    def __init__(self, target: Target) -> None:
        self.target = target

    def succeeded(
        self,
        seconds: float,
        *,
        input_tokens: int | None = None,
        images: int | None = None,
        cost_nanos: int | None = None,
    ) -> None:
        """Note that the call was served in `seconds`, and what it really used; None leaves the estimate standing."""

    def failed(self, seconds: float) -> None:
        """Note a failure that counts for the breaker: 500, 503, 504, no connection, a broken exchange."""

    def ignored(self) -> None:
        """Note an end that says nothing of the target's health: a 400, 403, 404, or a caller who hung up."""

    def exhausted(self, retry_after_seconds: float | None, violations: Sequence[Mapping[str, Any]]) -> None:
        """Note a 429 with RetryInfo's delay and QuotaFailure's violations: the account cools down for the model."""

    def release(self) -> None:
        """Give the place back unused: nothing was sent."""


class Traffic:
    """Places of this process."""

    async def place(self, request: PlaceRequest) -> Place:
        """Return a place at the lowest rank that has room, waiting for it within the deadline.

        Raises:
            Overloaded: the call was shed.
            TargetsUnhealthy: every breaker is open past the deadline.
            UpstreamExhausted: every account is out of quota past the deadline.
            DeadlineTooShort: the call's turn did not come in time.
        """
        return Place(request.targets[0])
