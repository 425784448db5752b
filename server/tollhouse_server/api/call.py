"""What a handler knows of the call it serves, whichever transport brought it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tollhouse_server.identity.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: who makes it, until when he waits, and the id by which logs, audit and errors name it.

    `deadline` is a moment of `time.monotonic()`, in seconds. `metadata` has lower-case names and no credentials.
    """

    rpc: str
    principal: Principal
    deadline: float
    correlation_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the deadline, zero when it has passed."""
        return max(0.0, self.deadline - time.monotonic())
