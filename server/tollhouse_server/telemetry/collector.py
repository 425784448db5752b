"""A collector of traces at an OTLP/HTTP address (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.http_bodies import body_of
from tollhouse_server.telemetry.otlp import rejected_spans
from tollhouse_server.telemetry.tracing import Answer

_SEND_SECONDS: Final = 10.0
_MOST_ANSWER_BYTES: Final = 64 * 1024
_HEADER = re.compile(r"([A-Za-z0-9-]{1,100}): *([\x21-\x7e](?:[\x20-\x7e]{0,4000}[\x21-\x7e])?)")


class HttpCollector:
    """Posts ExportTraceServiceRequests. Redirects are not followed: the headers hold a secret."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def send(self, request: bytes) -> Answer:
        """Return what it says within ten seconds."""
        try:
            async with self._session.post(self._url, data=request, allow_redirects=False) as answer:
                said = await body_of(answer, most_bytes=_MOST_ANSWER_BYTES)
                return Answer(answer.status, rejected=rejected_spans(said))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Its text may quote the address, which may hold a password.
            return Answer(0, fault=type(error).__name__)


@asynccontextmanager
async def open_collector(endpoint: str, headers_file: Path | None) -> AsyncIterator[HttpCollector]:
    """Open the connections to a collector; `endpoint` without a path gets OTLP's own.

    Raises:
        InvalidRequest: the headers' file cannot be used.
    """
    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + "/v1/traces"
    headers = {**_read(headers_file), "content-type": "application/x-protobuf"}
    timeout, jar = aiohttp.ClientTimeout(total=_SEND_SECONDS), aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, cookie_jar=jar) as session:
        yield HttpCollector(session, url)


def _read(file: Path | None) -> Mapping[str, str]:
    """Return the headers in a file, one `name: value` a line. Errors never quote it: it holds a secret."""
    if file is None:
        return {}
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(f"cannot be read: {type(error).__name__}") from None
    found = [(number, _HEADER.fullmatch(line.strip())) for number, line in enumerate(lines, 1) if line.strip()]
    headers = {}
    for number, header in found:
        if header is None:
            raise _unusable(f"line {number} is not of the form 'name: value'")
        headers[header[1].lower()] = header[2]
    return headers


def _unusable(description: str) -> InvalidRequest:
    return InvalidRequest(violations=(FieldViolation(path="TOLLHOUSE_TRACES_HEADERS_FILE", description=description),))
