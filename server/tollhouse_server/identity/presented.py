"""What a call presents of its caller, and what it is admitted on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from tollhouse_server.identity.networks import Network
from tollhouse_server.identity.principal import Principal

FOR_EVER: Final = float("inf")


class Presented(Protocol):
    """What a transport knows of the caller: metadata in lower case, the peer as gRPC names it, his certificate.

    `certificate` returns what a certificate that the transport has verified says of its holder, the best name first:
    `spiffe://...` or `subject:...`; nothing where there is none.
    """

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def peer(self) -> str: ...

    @property
    def certificate(self) -> Callable[[], tuple[str, ...]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A credential that was found good: for whom, until when, from where.

    `expires_at` is in seconds of Unix time. `key_id` is the id of an API key, empty for what is none.
    """

    principal: Principal
    expires_at: float = FOR_EVER
    networks: tuple[Network, ...] = ()
    key_id: str = ""
