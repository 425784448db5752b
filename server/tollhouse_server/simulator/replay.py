"""Replaying recorded traffic, byte for byte in meaning: to a request equal to a recorded one, by number, or in turn."""

from __future__ import annotations

import gzip
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tollhouse_server.simulator.errors import JsonObject


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded exchange; `chunks` are the JSON bodies of a stream, or the one body of a unary answer."""

    path: str
    request: Any
    status: int
    chunks: tuple[JsonObject, ...]
    is_stream: bool

    @property
    def usage(self) -> JsonObject:
        """The last usage metadata it holds, or nothing."""
        found = [chunk["usageMetadata"] for chunk in self.chunks if "usageMetadata" in chunk]
        return found[-1] if found else {}


class Recordings:
    """Recorded exchanges by number and by request, and those that wait for whatever is asked next."""

    def __init__(self, recordings: Iterable[Recording] = ()) -> None:
        self._recordings = list(recordings)
        self._queued: deque[Recording] = deque()
        self._by_request: dict[bytes, Recording] = {}
        for each in self._recordings:
            self._by_request.setdefault(_fingerprint(each.path, each.request), each)

    @classmethod
    def load(cls, path: Path) -> Recordings:
        """Read a `.jsonl` or `.jsonl.gz` file of recorded exchanges."""
        return cls(_read(path))

    def __len__(self) -> int:
        return len(self._recordings)

    def queue(self, entries: Iterable[JsonObject]) -> None:
        """Answer the next calls from these, in turn, whatever they ask; those that still waited are dropped."""
        self._queued = deque([_recording(entry) for entry in entries])

    def find(self, path: str, body: bytes, number: str | None) -> Recording | None:
        """Give the one whose turn it is, or that of a number, or the one whose path and request equal these."""
        if self._queued:
            return self._queued.popleft()
        if not self._recordings:
            return None
        if number is not None:
            within = number.isdecimal() and int(number) < len(self._recordings)
            return self._recordings[int(number)] if within else None
        try:
            return self._by_request.get(_fingerprint(path, orjson.loads(body)))
        except orjson.JSONDecodeError:
            return None


def _read(path: Path) -> Iterator[Recording]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in raw.splitlines():
        yield _recording(orjson.loads(line))


def _recording(entry: JsonObject) -> Recording:
    response = entry["response"]
    is_stream = isinstance(response, str) and response.startswith("data:")
    return Recording(
        path=entry["path"].split("?")[0],
        request=orjson.loads(entry["request"]) if isinstance(entry["request"], str) else entry["request"],
        status=entry["status"],
        chunks=tuple(_chunks(response, is_stream=is_stream)),
        is_stream=is_stream,
    )


def _chunks(response: Any, *, is_stream: bool) -> Iterator[JsonObject]:
    if not is_stream:
        yield orjson.loads(response) if isinstance(response, str) else response
        return
    # Not splitlines(): JSON strings may hold line separators of Unicode unescaped.
    for line in response.split("\n"):
        if line.startswith("data:"):
            yield orjson.loads(line.removeprefix("data:"))


def _fingerprint(path: str, request: Any) -> bytes:
    canonical = orjson.dumps([path, request], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).digest()
