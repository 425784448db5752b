"""What a handler knows of the call it serves, whichever transport brought it."""

from dataclasses import dataclass

from tollhouse_server.identity.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: who makes it, until when he waits, and the id by which logs, audit and errors name it.

    `deadline` is a moment of `time.monotonic()`, in seconds.
    """

    rpc: str
    principal: Principal
    deadline: float
    correlation_id: str
