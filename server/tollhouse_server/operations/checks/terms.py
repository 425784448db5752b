"""What a check is, what it looks at, and what it finds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tollhouse_server.database.engine import Database
from tollhouse_server.operations.checks.scrape import Scrape
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.settings import Settings
from tollhouse_server.vault.client import VaultClient


class Outcome(StrEnum):
    """What came of a check; the wire has the same names."""

    OK = "OK"
    WARNING = "WARNING"
    FAILURE = "FAILURE"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen and what to do about it, each in one line."""

    outcome: Outcome
    seen: str
    advice: str = ""


def fine(seen: str) -> Finding:
    """Return that all is as it should be."""
    return Finding(Outcome.OK, seen)


def warning(seen: str, advice: str) -> Finding:
    """Return that somebody should look."""
    return Finding(Outcome.WARNING, seen, advice)


def failure(seen: str, advice: str) -> Finding:
    """Return that something does not work."""
    return Finding(Outcome.FAILURE, seen, advice)


def skipped(seen: str) -> Finding:
    """Return why there was nothing to look at."""
    return Finding(Outcome.SKIPPED, seen)


class KeyCheck(Protocol):
    """What is known of upstream keys, and a way to try one."""

    def missing(self, account_id: str, /) -> list[str]:
        """Return the active keys of an account that cannot be used, because they could not be read from Vault."""

    async def probe(self, account_id: str, /) -> str:
        """Try an account with a call that costs nothing; return ACCEPTED, REFUSED or UNKNOWN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What checks look at. `probes` says whether a real call may be made upstream, one that costs nothing."""

    settings: Settings
    database: Database
    gateway: VaultClient
    custodian: VaultClient
    catalogue: Callable[[], Catalogue]
    keys: KeyCheck
    scrape: Scrape
    probes: bool = False


Look = Callable[[Surroundings], Awaitable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check. `advice` is for when it does not end in time; `needs` names a check without which this one is idle."""

    name: str
    look: Look
    advice: str
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a check found, and how long it took."""

    name: str
    finding: Finding
    seconds: float


def duration_text(seconds: float) -> str:
    """Return a duration as people say it, in its largest unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 1 else f"{seconds * 1000:.0f} ms"


def size_text(size_bytes: float) -> str:
    """Return a size as people say it."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes / 1024:.0f} KiB"
