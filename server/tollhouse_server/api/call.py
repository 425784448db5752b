"""What a handler knows of the call it serves, whichever transport brought it."""

from dataclasses import dataclass

from tollhouse_server.access.permit import UNLIMITED, Permit
from tollhouse_server.identity.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: who makes it, until when he waits, and the id by which logs, audit and errors name it.

    `deadline` is a moment of `time.monotonic()`, in seconds. `domain` is the tenant that he may act in, or the
    platform: that of the scope on which his permission was found. Whoever does for him what cannot be undone asks
    `permit` right before. `peer` is the other end as gRPC names it; what proxies and the caller himself say of him is
    not to be believed without more. `size_bytes` is how large his message was.
    """

    rpc: str
    principal: Principal
    domain: str
    deadline: float
    correlation_id: str
    permit: Permit = UNLIMITED
    size_bytes: int = 0
    peer: str = ""
    forwarded_for: str | None = None
    user_agent: str = ""
