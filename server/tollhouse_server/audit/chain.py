"""How events are linked, and whether a stored trail still is what was linked. `README.md` beside this has the rules."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tollhouse_server.audit.store import Link

_HASHED_FOR: Final = b"tollhouse.audit/1\n"

BEGINNING: Final = bytes(32)
"""What the first event of a trail is linked to."""


def hash_of(line: str) -> bytes:
    """Return the hash of an event, given the line that stands for it."""
    encoded = line.encode()
    return hashlib.sha256(_HASHED_FOR + len(encoded).to_bytes(8, "big") + encoded).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A place in which a trail is not what it was; `sequence` is that of the event, or of the checkpoint."""

    sequence: int
    problem: str


@dataclass(slots=True, kw_only=True)
class Walk:
    """A walk along a stored trail, event by event. `signed` are the hashes that checkpoints know, by sequence."""

    sequence: int
    hash: bytes
    signed: Mapping[int, bytes]
    breaks: list[Break] = field(default_factory=list)

    def take(self, links: Iterable[Link]) -> None:
        """Go on over further events, in their order."""
        for link in links:
            self._take(link)

    def _take(self, link: Link) -> None:
        if link.sequence != self.sequence + 1:
            self._broken(link.sequence, f"follows on {self.sequence}: events are missing, or there is one too many")
        elif link.previous != self.hash:
            self._broken(link.sequence, "is not linked to the event before it")
        if hash_of(link.line) != link.hash:
            self._broken(link.sequence, "is not what was linked")
        signed = self.signed.get(link.sequence)
        if signed is not None and signed != link.hash:
            self._broken(link.sequence, "is not what a checkpoint has signed")
        self.sequence, self.hash = link.sequence, link.hash

    def _broken(self, sequence: int, problem: str) -> None:
        self.breaks.append(Break(sequence=sequence, problem=problem))
