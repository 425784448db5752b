"""Sending an answer: at a model's pace, and with the fault that a plan wants on the way.

A stream whose client hangs up between two chunks goes no further; what had been sent by then is what it used.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tollhouse_server.simulator.faults import FaultPlan
from tollhouse_server.simulator.transport import TRANSPORT_KEY

_GARBAGE = b'{"candidates": [{"content": {"par\xff\x00 not json'
_ABORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds before the first byte, and between two chunks."""

    before_seconds: float = 0.0
    between_seconds: float = 0.0


class Delivery(Response):
    """An answer in pieces. `framed` tells a stream, whose end is not known beforehand, from a unary body."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        *,
        framed: bool,
        media_type: str,
        headers: dict[str, str],
        pace: Pace,
        fault: FaultPlan | None,
        on_hang_up: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._on_hang_up = on_hang_up
        self._framed = framed
        self._pieces = _spoiled(pieces, fault, framed=framed)
        self._pace = pace
        self._fault = fault
        super().__init__(None, media_type=media_type, headers=headers)

    def init_headers(self, headers: object = None) -> None:
        """Set the headers without a content length: `__call__` adds it where the length is true."""
        super().init_headers(headers)  # type: ignore[arg-type]
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all, or as much as the fault lets through."""
        try:
            await self._deliver(scope, receive, send)
        except asyncio.CancelledError:
            # At shutdown the server would answer 500, which says "not charged" of a call that was served.
            _reset(scope)
            raise

    async def _deliver(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _sleep(self._pace.before_seconds + self._slowness())
        sent = 0
        async for piece in self._paced(receive):
            if self._stops_after(sent):
                break
            if sent == 0:
                await send(self._start())
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent += 1
        if sent < len(self._pieces) and not self._breaks():
            await self._note_hang_up(sent)
        elif self._breaks():
            await self._break(scope, receive)
        else:
            if sent == 0:
                await send(self._start())
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _start(self) -> Message:
        headers = list(self.raw_headers)
        if not self._framed and not (self._fault and self._fault.kind in {"truncate", "cut"}):
            headers.append((b"content-length", str(sum(map(len, self._pieces))).encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}

    async def _paced(self, receive: Receive) -> AsyncIterator[bytes]:
        """Yield the pieces at the model's pace, as long as a stream's client is there."""
        for index, piece in enumerate(self._pieces):
            if index:
                seconds = self._pace.between_seconds + self._slowness()
                if self._framed and await _has_hung_up(receive, seconds):
                    return
                if not self._framed:
                    await _sleep(seconds)
            yield piece

    async def _note_hang_up(self, sent: int) -> None:
        if self._on_hang_up is not None:
            await self._on_hang_up(sent)

    def _slowness(self) -> float:
        return self._fault.delay_seconds if self._fault and self._fault.kind == "slow" else 0.0

    def _breaks(self) -> bool:
        return self._fault is not None and self._fault.kind in {"hang", "reset"}

    def _stops_after(self, sent: int) -> bool:
        return self._fault is not None and self._breaks() and sent >= self._fault.after_chunks

    async def _break(self, scope: Scope, receive: Receive) -> None:
        if self._fault and self._fault.kind == "hang":
            await _hang(receive, self._fault.delay_seconds)
        _reset(scope)
        await _hang(receive, _ABORT_SECONDS)


def _spoiled(pieces: Sequence[bytes], fault: FaultPlan | None, *, framed: bool) -> list[bytes]:
    """Cut or spoil the pieces as the fault wants; a unary body breaks in its middle, so it gets two pieces."""
    kept = list(pieces)
    if fault is None or fault.kind == "slow":
        return kept
    if fault.kind == "cut":
        return kept[: min(fault.after_chunks, len(kept) - 1)]
    if not framed:
        whole = b"".join(kept)
        kept = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
    at = min(fault.after_chunks, len(kept) - 1)
    if fault.kind == "truncate":
        return [*kept[:at], kept[at][: len(kept[at]) // 2]] if framed else kept[:1]
    if fault.kind == "garbage":
        return [*kept[:at], (b"data: " if framed else b"") + _GARBAGE + b"\r\n\r\n", *kept[at + 1 :]]
    return kept


async def _sleep(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _has_hung_up(receive: Receive, seconds: float) -> bool:
    """Let so many seconds pass, or fewer if the client hangs up; tell whether he has."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


async def _hang(receive: Receive, seconds: float) -> None:
    """Wait until the client hangs up, at most `seconds` when that is not 0."""
    try:
        async with asyncio.timeout(seconds or None):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return


def _reset(scope: Scope) -> None:
    """Abort the connection so that the peer sees a TCP reset, not an orderly end."""
    transport: asyncio.Transport = scope[TRANSPORT_KEY]
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with socket.socket(fileno=socket.dup(raw.fileno())) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
