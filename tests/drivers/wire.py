"""Servers that say byte for byte what a test tells them, and an HTTP proxy; all on loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came over the wire; names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Wire:
    """One connection of a server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> Seen | None:
        """Read a request; None when the client has gone."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Seen(method, target, headers, body)

    async def say(self, *pieces: bytes) -> None:
        """Send bytes."""
        for piece in pieces:
            self.writer.write(piece)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


def answer(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    """Write a whole answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass(slots=True)
class Server:
    """A running server, how often it was connected to, and what it was asked."""

    url: str
    connections: int = 0
    seen: list[Seen] = field(default_factory=list)


@asynccontextmanager
async def serving(
    script: Callable[[Wire], Awaitable[None]], *, context: ssl.SSLContext | None = None, limit: int = 64 * 1024 * 1024
) -> AsyncIterator[Server]:
    """Run a script for every connection; the connection ends with it."""
    server = Server("")
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        if task := asyncio.current_task():
            tasks.add(task)
        # Cancelled when the test ends; a stream's own callback would report that as a mistake.
        with suppress(ConnectionError, asyncio.CancelledError):
            await script(Wire(reader, writer))
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=limit)
    port = running.sockets[0].getsockname()[1]
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        running.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def answering(*answers: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Give these answers in turn, the last one for ever."""
    left = list(answers)

    async def script(wire: Wire) -> None:
        while (seen := await wire.request()) is not None:
            server.seen.append(seen)
            await wire.say(left.pop(0) if len(left) > 1 else left[0])

    async with serving(script, context=context) as server:
        yield server


@asynccontextmanager
async def proxying(refusal: bytes = b"", *, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run an HTTP proxy: CONNECT and plain requests; with a refusal, that is all it says."""
    tasks: set[asyncio.Task[None]] = set()

    async def script(wire: Wire) -> None:
        seen = await wire.request()
        if seen is None:
            return
        proxy.seen.append(seen)
        if refusal:
            await wire.say(refusal)
            return
        address = seen.target if seen.method == "CONNECT" else seen.target.split("/")[2]
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        if seen.method == "CONNECT":
            await wire.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            writer.write(_forwarded(seen))
        back = asyncio.create_task(_pump(reader, wire.writer))
        tasks.add(back)
        await _pump(wire.reader, writer)

    async with serving(script, context=context) as proxy:
        yield proxy
        for task in tasks:
            task.cancel()


def _forwarded(seen: Seen) -> bytes:
    path = "/" + seen.target.split("/", 3)[3]
    lines = [f"{seen.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in seen.headers.items()), "", ""]
    return "\r\n".join(lines).encode() + seen.body


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


def certified(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the context of a server at 127.0.0.1, and that of a client who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tollhouse test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    pkcs8 = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())
