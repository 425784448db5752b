"""Why a call got no place upstream."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError

_RETRY = "Retry after the stated delay."


@dataclass(eq=False, kw_only=True)
class Overloaded(TollhouseError):
    """More calls wait for a place upstream than may; this one was shed, having cost nothing.

    `priority` is the class that was shed, `waiting` how many calls waited, `retry_after_seconds` how long those need.
    """

    reason = "OVERLOADED"
    priority: str
    waiting: int
    retry_after_seconds: float | None

    def message(self) -> str:
        return (
            f"{self.waiting} calls wait for a place upstream; this one of priority {self.priority} was shed and cost "
            "nothing. Retry after the stated delay, or with a higher priority."
        )


@dataclass(eq=False, kw_only=True)
class TargetsUnhealthy(TollhouseError):
    """The breakers of all targets are open, and none is probed before the deadline; nothing was sent.

    `targets` is how many there are, `retry_after_seconds` when the first of them is probed.
    """

    reason = "TARGETS_UNHEALTHY"
    targets: int
    retry_after_seconds: float | None

    def message(self) -> str:
        is_by_order = self.retry_after_seconds is None
        until = "An operator's order holds them until it ends or is taken back." if is_by_order else _RETRY
        return (
            f"None of the {self.targets} upstream targets of this call is healthy (their breakers are open); nothing "
            f"was sent or charged. {until}"
        )
