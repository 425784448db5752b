"""The keys that the simulator accepts, refuses or lets expire, and the project each belongs to."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tollhouse_server.simulator import errors

DEFAULT_PROJECT = "simulated-project"
_KEY_ID_LENGTH = 16
_MINUTE_SECONDS = 60.0


def key_id(secret: str) -> str:
    """Name a key by the first 16 hexadecimal digits of its SHA-256, so that the key itself is never stored."""
    return hashlib.sha256(secret.encode()).hexdigest()[:_KEY_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is billed to."""

    key_id: str
    project: str


@dataclass(slots=True)
class Key:
    """What is known of one key; `state` is accepted, refused (400) or suspended (403)."""

    id: str
    project: str = DEFAULT_PROJECT
    state: str = "accepted"
    expires_at: float | None = None
    requests_per_minute: int | None = None
    recent: deque[float] = field(default_factory=deque)

    def shown(self) -> dict[str, Any]:
        """Give it as the admin path lists it."""
        names = ("id", "project", "state", "expires_at", "requests_per_minute")
        return {name: getattr(self, name) for name in names}


class KeyBook:
    """The keys, in one of two modes: any key that is not refused, or only the known ones."""

    def __init__(self, *, only_known: bool, clock: Callable[[], float]) -> None:
        self._only_known = only_known
        self._clock = clock
        self._keys: dict[str, Key] = {}

    def put(self, secret: str, settings: Mapping[str, Any]) -> Key:
        """Add or change one key; settings are `project`, `state`, `expires_at` and `requests_per_minute`."""
        if settings.get("state", "accepted") not in {"accepted", "refused", "suspended"}:
            raise ValueError("state must be accepted, refused or suspended")
        if not isinstance(settings.get("expires_at") or 0, (int, float)):
            raise ValueError("expires_at must be a Unix time in seconds")
        if not isinstance(settings.get("requests_per_minute") or 0, int):
            raise ValueError("requests_per_minute must be a whole number")
        known = self._keys.setdefault(key_id(secret), Key(key_id(secret)))
        for name in ("project", "state", "expires_at", "requests_per_minute"):
            if name in settings:
                setattr(known, name, settings[name])
        return known

    def set_only_known(self, only_known: bool) -> None:  # noqa: FBT001 - the value itself is the setting
        """Switch between accepting any key and only the known ones."""
        self._only_known = only_known

    def forget(self) -> None:
        """Forget every key."""
        self._keys.clear()

    def all(self) -> list[Key]:
        """Give every key that was named."""
        return list(self._keys.values())

    def admit(self, secret: str | None, *, model: str) -> Caller:
        """Say who calls, or raise the GeminiError that a missing, bad, expired or exhausted key earns."""
        if not secret:
            raise errors.key_missing()
        key = self._keys.get(key_id(secret))
        if key is None:
            if self._only_known:
                raise errors.api_key_invalid()
            return Caller(key_id(secret), DEFAULT_PROJECT)
        self._check_state(key)
        self._count(key, model)
        return Caller(key.id, key.project)

    def _check_state(self, key: Key) -> None:
        if key.state == "refused":
            raise errors.api_key_invalid()
        if key.state == "suspended":
            raise errors.key_suspended(key.project)
        if key.expires_at is not None and self._clock() >= key.expires_at:
            raise errors.api_key_expired()

    def _count(self, key: Key, model: str) -> None:
        if key.requests_per_minute is None:
            return
        now = self._clock()
        while key.recent and now - key.recent[0] >= _MINUTE_SECONDS:
            key.recent.popleft()
        if len(key.recent) >= key.requests_per_minute:
            wait = _MINUTE_SECONDS - (now - key.recent[0]) if key.recent else _MINUTE_SECONDS
            raise errors.quota_exceeded(model=model, retry_delay_seconds=wait, quota_value=key.requests_per_minute)
        key.recent.append(now)
