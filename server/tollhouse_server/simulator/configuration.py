"""The simulator's settings, read from one JSON file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings of one simulator.

    only_known_keys: refuse keys that `keys` (secret -> project, state, ... as in `keys.Key`) does not name.
    models: id or `*` -> latency_ms, tokens_per_second. replay: recorded traffic to answer from.
    faults, quotas: plans and quotas set at the start. capture: how many raw requests to keep (0 = none).
    """

    only_known_keys: bool = False
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    quotas: list[dict[str, Any]] = field(default_factory=list)
    replay: str | None = None
    capture: int = 0
    implicit_caching: bool = True
    body_limit_bytes: int = 100 * _MEBIBYTE

    @classmethod
    def load(cls, path: Path | None) -> Configuration:
        """Read the file, or the defaults without one; ValueError names what is wrong."""
        if path is None:
            return cls()
        settings = orjson.loads(path.read_bytes())
        unknown = sorted(set(settings) - {each.name for each in fields(cls)})
        if unknown:
            raise ValueError(f"{path}: unknown settings {', '.join(unknown)}")
        return cls(**settings)
