"""The few HTTP calls that bring an OpenBao server up. The serving code uses the vault room, never this."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from tollhouse_server.embedded.errors import EmbeddedStartFailed

TIMEOUT = aiohttp.ClientTimeout(total=15)
SERVING = 200
NOT_FOUND = 404


class OpenBaoApi:
    """JSON calls to one server, with or without a token. Use as an async context manager."""

    def __init__(self, address: str, *, token: str | None = None) -> None:
        """Prepare; connects on entry."""
        self._address = address
        self._headers = {"X-Vault-Token": token} if token else {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def answers(self) -> bool:
        """Tell whether it answers at all, sealed or not."""
        return await self._health() is not None

    async def serves(self) -> bool:
        """Tell whether it is unsealed and active."""
        return await self._health() == SERVING

    async def _health(self) -> int | None:
        try:
            async with self._session.get(f"{self._address}/v1/sys/health") as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def get(self, path: str) -> dict[str, Any]:
        """Return what is at `path`.

        Raises:
            EmbeddedStartFailed: there is nothing, the server does not answer, or it refuses.
        """
        found = await self.find(path)
        if found is None:
            raise EmbeddedStartFailed(part="OpenBao", detail=f"it has no {path}")
        return found

    async def find(self, path: str) -> dict[str, Any] | None:
        """Return what is at `path`, None when there is nothing.

        Raises:
            EmbeddedStartFailed: the server does not answer, or refuses.
        """
        return await self._call("GET", path)

    async def put(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write, and return the answer's JSON, empty when it has none.

        Raises:
            EmbeddedStartFailed: the server does not answer, or refuses.
        """
        return await self._call("PUT", path, body) or {}

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        try:
            async with self._session.request(method, f"{self._address}/v1/{path}", json=body) as response:
                if response.status == NOT_FOUND:
                    return None
                answer = await response.json() if response.content_type == "application/json" else None
                if not response.ok:
                    raise EmbeddedStartFailed(part="OpenBao", detail=f"{method} {path}: {_errors(answer)}")
                return answer or {}
        except (aiohttp.ClientError, TimeoutError) as error:
            detail = f"{method} {path}: {type(error).__name__}"
            raise EmbeddedStartFailed(part="OpenBao", detail=detail) from error


def _errors(answer: Mapping[str, Any] | None) -> str:
    return "; ".join(str(text).strip() for text in (answer or {}).get("errors", [])) or "no reason given"
