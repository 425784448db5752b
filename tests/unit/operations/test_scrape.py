"""What the metrics port does not say is NoMetrics, whatever it does instead."""

import asyncio

import pytest
from tollhouse_server.operations.checks.scrape import NoMetrics, Scrape
from tollhouse_server.telemetry.declarations.processes import PROCESSES


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", b"no HTTP at all\r\n\r\n"])
async def test_a_port_without_metrics_is_told(answer: bytes) -> None:
    """It hangs up, fails, or speaks something else."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        scrape = Scrape("127.0.0.1", server.sockets[0].getsockname()[1])
        for _ in range(2):
            with pytest.raises(NoMetrics):
                await scrape.samples(PROCESSES)
