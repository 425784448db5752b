"""Restarts an embedded part that ended, with back-off."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from tollhouse_server.embedded.child import Child
from tollhouse_server.embedded.errors import EmbeddedStartFailed
from tollhouse_server.errors import TollhouseError

LOOK_SECONDS = 0.2
# A part that ran this long was well; its next end is a new matter, not one more failure in a row.
HEALTHY_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class Part(Protocol):
    """A child process that can be started again."""

    @property
    def child(self) -> Child | None:
        """Return the process, once started."""

    async def start(self) -> Any:
        """Start or restart; ready on return.

        Raises:
            TollhouseError: it did not start.
        """

    async def stop(self) -> None:
        """Stop in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Waits of `first_seconds`, doubled up to `longest_seconds`; `give_up_after` failures in a row, None for never."""

    first_seconds: float = 0.25
    longest_seconds: float = 15.0
    give_up_after: int | None = None

    def wait_seconds(self, failures: int) -> float:
        """Return how long to wait after this many ends or failed starts in a row (1 or more)."""
        return float(min(self.first_seconds * 2 ** min(failures - 1, 16), self.longest_seconds))


async def keep_running(name: str, part: Part, policy: RestartPolicy) -> None:
    """Restart `part` whenever it ends, until cancelled.

    Raises:
        EmbeddedStartFailed: it ended or failed to start more often in a row than the policy allows.
    """
    failures = 0
    while True:
        started_at = time.monotonic()
        exit_code = await _end_of(part)
        failures = 1 if time.monotonic() - started_at > HEALTHY_SECONDS else failures + 1
        _log.error("embedded_part_ended", part=name, exit_code=exit_code, failures=failures)
        failures = await _restart(name, part, policy, failures)


async def _restart(name: str, part: Part, policy: RestartPolicy, failures: int) -> int:
    while True:
        if policy.give_up_after is not None and failures > policy.give_up_after:
            raise EmbeddedStartFailed(part=name, detail=f"it ended or failed to start {failures} times in a row")
        await asyncio.sleep(policy.wait_seconds(failures))
        try:
            await part.start()
        except TollhouseError as error:
            failures += 1
            _log.error("embedded_part_not_restarted", part=name, failures=failures, error=str(error))
        else:
            _log.info("embedded_part_restarted", part=name)
            return failures


async def _end_of(part: Part) -> int | None:
    child = part.child
    if child is None:
        return None
    await child.ended(look_every_seconds=LOOK_SECONDS)
    return child.exit_code()
