"""A typed client of the admin path, and `running_simulator`, which starts a simulator of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from tollhouse_server.simulator.errors import JsonObject

_READY_PREFIX = b"simulator ready url="
_START_SECONDS = 20.0
_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class ServedCall:
    """One row of the call log."""

    sequence: int
    served_at_ms: int
    key_id: str
    project: str
    model: str
    method: str
    usage: JsonObject
    attempt_id: str | None
    service_tier: str
    fault: str | None
    image_count: int
    response_id: str | None
    region: str = "global"

    @classmethod
    def read(cls, row: JsonObject) -> ServedCall:
        """Read a row as the admin path lists it; fields of later versions are left out."""
        return cls(**{each.name: row[each.name] for each in fields(cls)})


class SimulatorRefused(Exception):
    """The admin path answered with an error; the text is its reason."""


class SimulatorClient:
    """Speaks to the admin path of a running simulator. Use as an async context manager."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> SimulatorClient:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def accept_key(
        self, key: str, *, project: str | None = None, requests_per_minute: int | None = None
    ) -> JsonObject:
        """Accept a key, in a project, with a limit of its own or without."""
        given: JsonObject = {"key": key, "state": "accepted", "expires_at": None}
        if project is not None:
            given["project"] = project
        return await self._send("POST", "keys", given | {"requests_per_minute": requests_per_minute})

    async def refuse_key(self, key: str, *, suspended: bool = False, leaked: bool = False) -> JsonObject:
        """Refuse a key from now on: 400 API_KEY_INVALID, or 403 when it is suspended or leaked."""
        state = "leaked" if leaked else "suspended" if suspended else "refused"
        return await self._send("POST", "keys", {"key": key, "state": state})

    async def expire_key(self, key: str, *, at: float) -> JsonObject:
        """Let a key expire at that Unix time."""
        return await self._send("POST", "keys", {"key": key, "expires_at": at})

    async def accept_only_known_keys(self, only_known: bool = True) -> None:  # noqa: FBT001, FBT002 - the setting itself
        """Refuse keys that were never named, or accept them again."""
        await self._send("POST", "keys", {"only_known": only_known})

    async def keys(self) -> list[JsonObject]:
        """List the keys that were named, by id."""
        return list((await self._send("GET", "keys"))["keys"])

    async def add_fault(self, kind: str, **settings: Any) -> JsonObject:
        """Set a fault plan; the settings are the fields of `faults.FaultPlan`."""
        return dict((await self._send("POST", "faults", {"kind": kind, **settings}))["faults"][0])

    async def faults(self) -> list[JsonObject]:
        """List the fault plans with what they have hit."""
        return list((await self._send("GET", "faults"))["faults"])

    async def clear_faults(self, plan_id: int | None = None) -> None:
        """Remove one fault plan, or all."""
        await self._send("DELETE", "faults" if plan_id is None else f"faults?id={plan_id}")

    async def set_quota(self, project: str, **settings: Any) -> JsonObject:
        """Set the quota of a project (`model=`, `region=`: of those only); the settings are those of `quotas.Quota`."""
        return dict((await self._send("POST", "quotas", {"project": project, **settings}))["quotas"][0])

    async def quotas(self) -> list[JsonObject]:
        """List the quotas with what is used of them."""
        return list((await self._send("GET", "quotas"))["quotas"])

    async def clear_quotas(self, project: str | None = None) -> None:
        """Forget the quotas of one project, or all."""
        await self._send("DELETE", "quotas", None, {"project": project} if project else None)

    async def set_capacity(self, region: str = "", **settings: Any) -> JsonObject:
        """Limit a region, or all together; the settings are those of `capacity.Limits`."""
        return await self._send("POST", "capacity", {"region": region, **settings})

    async def capacity(self) -> list[JsonObject]:
        """List the limits with how many calls run and were refused."""
        return list((await self._send("GET", "capacity"))["capacity"])

    async def clear_capacity(self) -> None:
        """Take every limit on capacity away."""
        await self._send("DELETE", "capacity")

    async def open_port(self, region: str = "", port: int = 0) -> JsonObject:
        """Open an extra port that stands for a region, or a closed one again; give `port`, `region`, `url`, `open`."""
        return await self._send("POST", "ports", {"region": region, "port": port})

    async def close_port(self, port: int) -> JsonObject:
        """Close an extra port: new connections are refused, those there are aborted."""
        return await self._send("DELETE", "ports", None, {"port": str(port)})

    async def ports(self) -> list[JsonObject]:
        """List the extra ports."""
        return list((await self._send("GET", "ports"))["ports"])

    async def issue_service_account_key(self, project: str, **settings: Any) -> JsonObject:
        """Make a service account, or a further key of the one that `email` names; give Google's JSON for it.

        Other settings: `projects` (it may call in besides, "*" = all), `token_lifetime_seconds`, `enabled`.
        """
        return await self._send("POST", "service-accounts", {"project": project, **settings})

    async def change_service_account(self, email: str, **settings: Any) -> JsonObject:
        """Change `enabled`, `projects` or `token_lifetime_seconds`, or disable the key that `disable_key` names."""
        return await self._send("PATCH", "service-accounts", {"email": email, **settings})

    async def service_accounts(self) -> list[JsonObject]:
        """List the service accounts."""
        return list((await self._send("GET", "service-accounts"))["service_accounts"])

    async def revoke_tokens(self, email: str | None = None) -> None:
        """Refuse every access token that is out, or those of one account, with 401."""
        await self._send("DELETE", "tokens", None, {"email": email} if email else None)

    async def set_api_keys(self, **seconds: float) -> JsonObject:
        """Set `propagation_seconds` until a change to an API key counts, `operation_seconds` until it is done."""
        return await self._send("POST", "api-keys", seconds)

    async def add_model(self, model: str, *, like: str) -> None:
        """Serve one more model, which does as a known one does."""
        await self._send("POST", "models", {model: {"like": like}})

    async def set_pace(self, model: str = "*", **pace: float) -> None:
        """Set `latency_ms` and `tokens_per_second` of one model, or of all."""
        await self._send("POST", "models", {model: pace})

    async def calls(self, *, after: int = 0, **filters: str) -> list[ServedCall]:
        """List served calls above a sequence; filter by key_id, project, region, model, method, attempt_id, fault."""
        found: list[ServedCall] = []
        while True:
            page = await self._send("GET", "calls", None, {"after": str(after), "limit": str(_PAGE), **filters})
            found += [ServedCall.read(row) for row in page["calls"]]
            if len(page["calls"]) < _PAGE:
                return found
            after = found[-1].sequence

    async def count_calls(self, **filters: str) -> int:
        """Count served calls; the filters are those of `calls`."""
        return int((await self._send("GET", "calls/count", None, filters))["count"])

    async def capture_requests(self, limit: int) -> None:
        """Keep the last `limit` raw requests from now on; 0 switches it off."""
        await self._send("POST", "requests", {"limit": limit})

    async def requests(self) -> list[JsonObject]:
        """List the captured requests: method, path, query, headers, body."""
        return list((await self._send("GET", "requests"))["requests"])

    async def replay_next(self, *recordings: JsonObject) -> None:
        """Answer the next calls from these recordings (path, request, status, response), not from earlier ones."""
        await self._send("POST", "replay", {"recordings": recordings})

    async def health(self) -> JsonObject:
        """Say that it serves."""
        return await self._send("GET", "health")

    async def _send(self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> JsonObject:
        assert self._session is not None, "use the client as an async context manager"  # noqa: S101
        content = orjson.dumps(body) if body is not None else None
        address = f"{self.url}/_simulator/{path}"
        async with self._session.request(method, address, data=content, params=query) as answer:
            given: JsonObject = orjson.loads(await answer.read())
            if answer.status != 200:
                raise SimulatorRefused(given.get("error"))
            return given


class RunningSimulator(SimulatorClient):
    """A simulator in a process of its own, with its admin client; `log` and the port outlive a restart."""

    def __init__(self, log: Path, configuration: Path) -> None:
        super().__init__("")
        self.log = log
        self._configuration = configuration
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError when it was never started."""
        return self._running().pid

    async def start(self) -> None:
        """Start it and wait for its ready line, or raise RuntimeError with what it said instead."""
        arguments = ["-m", "tollhouse_server.simulator", "--port", str(self._port), "--exit-with-stdin"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            *("--log", str(self.log), "--config", str(self._configuration)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        self.url = await self._read_address(self._process)
        self._port = int(self.url.rsplit(":", 1)[1])

    async def kill(self) -> None:
        """End it at once, as kill -9 does."""
        process = self._running()
        process.kill()
        await process.wait()

    async def stop(self) -> int:
        """End it in good order and give its exit code; nothing happens when it has ended already."""
        process = self._running()
        if process.returncode is None:
            process.terminate()
        return await process.wait()

    async def restart(self) -> None:
        """Start it again on the same port, with the same log and configuration."""
        await self.stop()
        await self.start()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the simulator was not started")
        return self._process

    async def _read_address(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        if not line.startswith(_READY_PREFIX):
            raise RuntimeError(f"the simulator did not start (exit code {await process.wait()})")
        return line.removeprefix(_READY_PREFIX).split()[0].decode()


@contextlib.asynccontextmanager
async def running_simulator(*, log: Path | None = None, **settings: Any) -> AsyncIterator[RunningSimulator]:
    """Run a simulator on a free port of 127.0.0.1 and stop it at the end.

    The settings are the fields of `configuration.Configuration`; without `log` the call log is a temporary file.
    """
    with tempfile.TemporaryDirectory(prefix="simulator-") as folder:
        configuration = Path(folder) / "configuration.json"
        configuration.write_bytes(orjson.dumps(settings))
        simulator = RunningSimulator(log or Path(folder) / "calls.sqlite", configuration)
        await simulator.start()
        try:
            async with simulator:
                yield simulator
        finally:
            await simulator.stop()


def _environment() -> dict[str, str]:
    # The child finds the packages where this process found them, installed or not.
    return {"PYTHONPATH": ":".join(entry for entry in sys.path if entry), "PYTHONUNBUFFERED": "1"}
