"""That a call may be made, known for certain until a moment: asked again whenever that moment has passed.

Between the moment at which a call is let in and the one at which something irrevocable is done for it, any time can
pass: it waits for its turn, for the database, or its whole process stands still. So who does it asks again right
before.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from tollhouse_server.access.authorizer import Authorizer


class Permit(Protocol):
    """What a call may be made on."""

    async def sure_until(self) -> float:
        """Return until which moment of `time.monotonic()` it is certain, in seconds, that the call may be made.

        Raises:
            CredentialsInvalid, PermissionDenied: it may no more.
            StoreUnavailable: nobody can know, and the call's time is up.
        """


class LivePermit:
    """A permit given on what `authorizer` knew at `version`; `confirm` asks for it again, and raises if there is none.

    `version` is of before the call was let in: what changed while it was counts as a change.
    """

    __slots__ = ("_authorizer", "_confirm", "_version")

    def __init__(self, authorizer: Authorizer, version: int, confirm: Callable[[], Awaitable[None]]) -> None:
        self._authorizer = authorizer
        self._version = version
        self._confirm = confirm

    async def sure_until(self) -> float:
        """Return until when it is certain that the call may be made.

        Raises:
            TollhouseError: as `Permit` says.
        """
        authorizer = self._authorizer
        while self._version != authorizer.version or not authorizer.is_certain:
            version = authorizer.version
            await self._confirm()
            self._version = version
        return authorizer.certain_until


class _Unlimited:
    """The permit of what is done by nobody outside."""

    __slots__ = ()

    async def sure_until(self) -> float:
        return math.inf


UNLIMITED: Final[Permit] = _Unlimited()
