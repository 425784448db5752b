"""The metrics as Prometheus gets them, read once for all checks that need them."""

import asyncio
from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tollhouse_server.telemetry.declarations import Declaration

_TIMEOUT_SECONDS = 2.5
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class NoMetrics(Exception):
    """The metrics port does not answer, or with something else."""


class Scrape:
    """What the metrics port of this server says."""

    def __init__(self, host: str, port: int) -> None:
        self.url = f"http://{_ANY_ADDRESS.get(host, host)}:{port}/metrics"
        self._reading = asyncio.Lock()
        self._read: Mapping[str, Sequence[Sample]] | NoMetrics | None = None

    async def samples(self, declaration: Declaration) -> Sequence[Sample]:
        """Return the samples of one metric.

        Raises:
            NoMetrics: the port does not answer.
        """
        async with self._reading:
            if self._read is None:
                try:
                    self._read = await asyncio.to_thread(_parsed, await self._body())
                except NoMetrics as error:
                    self._read = error
                except (TimeoutError, ValueError, LookupError, OSError) as error:
                    self._read = NoMetrics(f"{type(error).__name__}")
        if isinstance(self._read, NoMetrics):
            raise self._read
        return self._read.get(declaration.name, ())

    async def value(self, declaration: Declaration) -> float | None:
        """Return the value of a metric that has no labels; None where no process has set it.

        Raises:
            NoMetrics: the port does not answer.
        """
        found = await self.samples(declaration)
        return found[0].value if found else None

    async def _body(self) -> str:
        import aiohttp  # noqa: PLC0415 - loaded before, with the checks; see diagnosis.py

        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self.url) as answer:
                answer.raise_for_status()
                return await answer.text()
        except aiohttp.ClientError as error:
            raise NoMetrics(f"{type(error).__name__}") from error


def _parsed(text: str) -> Mapping[str, Sequence[Sample]]:
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found
