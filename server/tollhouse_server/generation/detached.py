"""Calls that outlive their RPC: a client that hangs up does not stop the settlement."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import structlog

from tollhouse_server.errors import TollhouseError
from tollhouse_server.telemetry.steps import CallNotes, current_notes

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class DetachedCalls:
    """Runs calls to their end in one task group, whatever becomes of the RPCs that wait for them."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Start a call and return the future of its result; cancelling the future does not stop the call."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        notes = current_notes()
        if notes is not None:
            notes.keep_open()
        self._tasks.add(self._group.create_task(self._carry(call, result, notes)))
        return result

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait for the calls to end, and tell if all did; those that have not are cancelled and go to suspense."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(self._tasks, timeout=timeout_seconds)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        return not pending

    async def _carry(self, call: Coroutine[Any, Any, T], result: "asyncio.Future[T]", notes: CallNotes | None) -> None:
        try:
            value = await call
        except Exception as error:  # noqa: BLE001 - whoever waits is told; a defect is logged even if nobody does
            if not isinstance(error, TollhouseError):
                _log.exception("call_failed", error=type(error).__name__)
            if not result.done():
                result.set_exception(error)
                # The RPC may have gone between here and there; asyncio must not complain that nobody looked.
                result.exception()
        except asyncio.CancelledError:
            result.cancel()
            raise
        else:
            if not result.done():
                result.set_result(value)
        finally:
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            if notes is not None:
                notes.close()
