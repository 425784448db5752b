"""One keep-alive HTTP/1.1 connection: a request goes out, an answer comes in, and it is known what has left.

Written on httptools, because of the client libraries that were measured the one as cheap as this calls a reset after
the request a failure to connect, which a bill must not rest on, and the other costs three times as much; figures are in
docs/decisions.
"""

import asyncio
import select
from collections.abc import Iterator, Mapping
from contextvars import Context
from typing import cast

import httptools

from tollhouse_server.long_values import LongJson
from tollhouse_server.upstream.inflating import Inflating, inflating
from tollhouse_server.upstream.protocol import Broken, TimedOut

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""No answer is larger, decompressed: pictures come back at some MB each."""
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BYTES_OF_A_HEADER = 1024 * 1024
"""So much may come without a header's end or a byte of the body; the parser keeps what is no whole header yet."""
_MAX_WAITING_BYTES = 1024 * 1024
"""So much of an answer is held for a slow reader before the server is made to wait."""
_SMALL_REQUEST_BYTES = 64 * 1024
"""So much the kernel takes at once: such a request is not on its way for long."""


class Connection(asyncio.Protocol):
    """Carries one exchange at a time: `send`, `head`, then `piece` until it is empty, then maybe the next.

    A worker has one for each stream that is open; without slots it is 1.3 kB larger.
    """

    __slots__ = (
        *("_alive", "_arrivals", "_loop", "_nobodys", "_parser", "_transport", "idle_since"),
        *("_complete", "_error", "_inflate", "_paused", "_pieces", "_under_way", "_waiter", "_waiting_bytes"),
        *("_ends_with_connection", "_fruitless_bytes", "_head_bytes", "_headers", "_keeps_alive", "_status"),
        *("_is_next_due", "_is_pushed_back", "_rest", "_rest_bytes", "_unsent_bytes"),
        *("_ends_at", "_heard_at", "_looks_at", "_silence_seconds", "_timeout_seconds", "_timer"),
    )

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._nobodys = Context()
        self._looks_at = 0.0
        self._alive = False
        self._under_way = False
        self._rest: Iterator[bytes] | None = None
        self._rest_bytes = 0
        self._is_pushed_back = self._is_next_due = False
        self.idle_since = 0.0

    # -- what a caller does

    def send(
        self, request: bytes, timeout_seconds: float, silence_seconds: float | None, *, body: LongJson | None = None
    ) -> None:
        """Begin an exchange: from here on the request may have reached the server.

        A long body follows a piece at a time, as fast as it is taken.
        """
        self._under_way, self._complete = True, False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._fruitless_bytes = 0
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._paused = False
        self._error: Broken | None = None
        self._inflate: Inflating | None = None
        self._timeout_seconds, self._silence_seconds = timeout_seconds, silence_seconds
        self._heard_at = now = self._loop.time()
        self._ends_at = now + timeout_seconds
        size_bytes = len(request) if body is None else len(request) + len(body)
        self._unsent_bytes = size_bytes if size_bytes > _SMALL_REQUEST_BYTES else 0
        self._watch_from(now)
        self._transport.write(request)
        if body is not None:
            self._rest, self._rest_bytes = body.pieces(), len(body)
            self._send_next()

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            Broken: the exchange broke.
        """
        while not self._status:
            await self._news()

    @property
    def status(self) -> int:
        """Return the status of the answer whose head has come."""
        return self._status

    def headers(self) -> Mapping[str, str]:
        """Return the headers, names in lower case, of several with one name the last."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers}

    async def piece(self) -> bytes:
        """Return what has come of the body since, decompressed; empty at its end.

        Raises:
            Broken: the exchange broke.
        """
        while not self._pieces:
            if self._complete:
                return b""
            await self._news()
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._waiting_bytes = 0
        if self._paused and self._alive:
            self._paused = False
            self._transport.resume_reading()
        return piece

    def bear_silence(self, seconds: float) -> None:
        """Let the server keep silent for so long from now on."""
        if seconds != self._silence_seconds and self._under_way:
            self._silence_seconds = seconds
            self._watch_from(self._loop.time())

    def end(self) -> bool:
        """End the exchange and tell whether the connection can carry another; if not, it is closed."""
        self._under_way = False
        reusable = self.is_open and self._complete and self._keeps_alive and not self._unsent
        if not reusable:
            self.close()
        return reusable

    @property
    def is_open(self) -> bool:
        """Tell whether a request can be sent."""
        return self._alive and not self._transport.is_closing()

    @property
    def is_left_alone(self) -> bool:
        """Tell whether nothing has come, be it the server's farewell, that the event loop has not taken up yet.

        A request that was sent all the same would be broken, and nobody could say any more that it was not served.
        """
        return not self._arrivals.poll(0)

    def close(self) -> None:
        """Close at once."""
        self._stop_watching()
        self._rest = None
        if self._alive:
            self._transport.abort()

    # -- what the event loop does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._arrivals = select.poll()
        self._arrivals.register(transport.get_extra_info("socket"), select.POLLIN)
        self._alive = True

    def data_received(self, data: bytes) -> None:
        if not self._under_way or self._complete:
            # Nobody asked: whatever this is, it must not be taken for the answer to the next request.
            self.close()
            return
        self._heard_at = self._loop.time()
        self._fruitless_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._fruitless_bytes > _MAX_BYTES_OF_A_HEADER:
                raise ValueError("the head is too large")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError) as error:
            # What a callback raised is the context of what the parser raises.
            self._fail(Broken(f"the answer cannot be read: {error.__context__ or error}"))
        self._wake()

    def pause_writing(self) -> None:
        self._is_pushed_back = True

    def resume_writing(self) -> None:
        self._is_pushed_back = False
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive, self._rest = False, None
        # Where we have given it up ourselves, its end is not the end of the answer.
        if not self._under_way or self._complete or self._error is not None:
            self._stop_watching()
            return
        whole = self._inflate is None or self._inflate.is_whole
        if exc is None and self._status and self._ends_with_connection and whole:
            self._complete, self._keeps_alive = True, False
            self._wake()
        else:
            self._fail(Broken(type(exc).__name__ if exc else "the server closed the connection"))

    # -- what the parser does

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise ValueError("the head is too large")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers.clear()
            return
        names = {name.lower(): value for name, value in self._headers}
        self._inflate = inflating(names.get(b"content-encoding", b""))
        self._ends_with_connection = b"content-length" not in names and b"transfer-encoding" not in names
        self._status = status

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        if self._inflate is None:
            self._keep(body)
            return
        for piece in self._inflate.feed(body):
            self._keep(piece)

    def on_message_complete(self) -> None:
        # Also called after 100 Continue and its like.
        if not self._status:
            return
        if self._inflate is not None and not self._inflate.is_whole:
            raise ValueError("the compressed body ends too early")
        self._complete = True
        self._keeps_alive = self._parser.should_keep_alive()

    # -- inside

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > MAX_ANSWER_BYTES:
            raise ValueError(f"it is larger than {MAX_ANSWER_BYTES} bytes")
        if self._waiting_bytes > _MAX_WAITING_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    @property
    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() + (self._rest_bytes if self._rest is not None else 0)

    def _send_next(self) -> None:
        """Send the next piece of a long body: one a turn of the loop, for a server that is near takes all at once."""
        if self._rest is None or self._is_pushed_back or self._is_next_due:
            return
        piece = next(self._rest, None)
        if piece is None:
            self._rest = None
            return
        self._rest_bytes -= len(piece)
        self._transport.write(piece)
        self._is_next_due = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_next_due = False
        self._send_next()

    async def _news(self) -> None:
        """Wait until something has come, if only the end; raise what is known to have broken."""
        if self._error is not None:
            raise self._error
        # Silence is the server's only while somebody listens: a reader who takes his time is none.
        self._heard_at = max(self._heard_at, self._loop.time())
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Broken) -> None:
        if self._error is None:
            self._error = error
        self.close()
        self._wake()

    def _watch_from(self, now: float) -> None:
        """Have `_watch` look when the time is up, or before: a timer that is set stays, be it from another exchange.

        To set and end one for each exchange cost 5 us. It keeps no context variables of the call that it was set in.
        """
        ends_at = self._ends_at
        if self._silence_seconds is not None:
            ends_at = min(ends_at, max(self._heard_at + self._silence_seconds, now + 0.001))
        if self._timer is not None:
            if self._looks_at <= ends_at:
                return
            self._timer.cancel()
        self._looks_at = ends_at
        self._timer = self._loop.call_at(ends_at, self._watch, context=self._nobodys)

    def _watch(self) -> None:
        """Look whether the time is up; the timer runs on while bytes come, which is cheaper than a new one for each."""
        self._timer = None
        if not self._under_way:
            return
        now = self._loop.time()
        silence = self._silence_seconds
        if now >= self._ends_at:
            self._fail(TimedOut(f"no whole answer within {self._timeout_seconds:g} s"))
            return
        if silence is not None and now >= self._heard_at + silence:
            if self._waiter is not None and self._unsent >= self._unsent_bytes:
                self._fail(TimedOut(f"silent for {silence:g} s"))
                return
            # A large request that still moves is no silence.
            self._heard_at, self._unsent_bytes = now, self._unsent
        self._watch_from(now)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
