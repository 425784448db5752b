"""Exchanges recorded with the real Gemini API; see the README beside this file for their source."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedExchange:
    """One request and what Google answered."""

    source: str
    host: str
    path: str
    status: int
    request: dict[str, Any]
    responses: tuple[dict[str, Any], ...]
    """The response body, or each chunk of a stream."""
    raw_response: dict[str, Any] | str
    """The response as recorded: an object, or text as it came over the wire."""

    @property
    def operation(self) -> str:
        """The verb of the REST path, such as `streamGenerateContent`."""
        return self.path.partition("?")[0].rpartition(":")[2]

    @property
    def model(self) -> str:
        """The model named in the REST path."""
        return self.path.partition("?")[0].rpartition(":")[0].rpartition("/")[2]


def recorded_exchanges() -> list[RecordedExchange]:
    """Return all 222 exchanges in the order of the file."""
    with gzip.open(Path(__file__).with_name("gemini_traffic.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [_exchange(json.loads(line)) for line in lines]


def _exchange(row: dict[str, Any]) -> RecordedExchange:
    return RecordedExchange(
        source=row["source"],
        host=row["host"],
        path=row["path"],
        status=row["status"],
        request=json.loads(row["request"]) if isinstance(row["request"], str) else row["request"],
        responses=_bodies(row["response"]),
        raw_response=row["response"],
    )


def _bodies(response: dict[str, Any] | str) -> tuple[dict[str, Any], ...]:
    if isinstance(response, dict):
        return (response,)
    if response.lstrip().startswith("{"):
        return (json.loads(response),)
    # Not splitlines(): JSON strings may hold line separators of Unicode unescaped.
    events = (line for line in response.split("\n") if line.startswith("data:"))
    return tuple(json.loads(event.removeprefix("data:")) for event in events)
