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
_STATES = ("accepted", "refused", "suspended", "leaked", "blocked")
_TIMES = ("expires_at", "valid_from", "valid_until")
_SETTINGS = ("project", "state", "requests_per_minute", *_TIMES)


def key_id(secret: str) -> str:
    """Name a key by the first 16 hexadecimal digits of its SHA-256, so that the key itself is never stored."""
    return hashlib.sha256(secret.encode()).hexdigest()[:_KEY_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is billed to, and where it is served."""

    key_id: str
    project: str
    region: str = "global"


@dataclass(slots=True)
class Key:
    """What is known of one key.

    state: accepted, refused (400; 401 for a token), suspended, leaked or blocked (403 each, with Google's reasons).
    valid_from, valid_until: Unix times outside of which the key is refused as if nobody had ever made it.
    """

    id: str
    project: str = DEFAULT_PROJECT
    state: str = "accepted"
    expires_at: float | None = None
    requests_per_minute: int | None = None
    valid_from: float | None = None
    valid_until: float | None = None
    recent: deque[float] = field(default_factory=deque)

    def shown(self) -> dict[str, Any]:
        """Give it as the admin path lists it."""
        return {name: getattr(self, name) for name in ("id", *_SETTINGS)}


_REFUSALS: Mapping[str, Callable[[], errors.GeminiError]] = {
    "refused": errors.api_key_invalid,
    "leaked": errors.key_leaked,
    "blocked": errors.key_blocked,
}


class KeyBook:
    """The keys, in one of two modes: any key that is not refused, or only the known ones."""

    def __init__(self, *, only_known: bool, clock: Callable[[], float]) -> None:
        self._only_known = only_known
        self._clock = clock
        self._keys: dict[str, Key] = {}

    def put(self, secret: str, settings: Mapping[str, Any]) -> Key:
        """Add or change one key; the settings are the fields of `Key`."""
        if settings.get("state", "accepted") not in _STATES:
            raise ValueError(f"state must be one of {', '.join(_STATES)}")
        for name in _TIMES:
            if not isinstance(settings.get(name) or 0, (int, float)):
                raise ValueError(f"{name} must be a Unix time in seconds")
        if not isinstance(settings.get("requests_per_minute") or 0, int):
            raise ValueError("requests_per_minute must be a whole number")
        known = self._keys.setdefault(key_id(secret), Key(key_id(secret)))
        for name in _SETTINGS:
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
        """Say who calls with an API key, or raise the GeminiError that a missing, bad or exhausted key earns."""
        if not secret:
            raise errors.key_missing()
        key = self._keys.get(key_id(secret))
        if key is None:
            if self._only_known:
                raise errors.api_key_invalid()
            return Caller(key_id(secret), DEFAULT_PROJECT)
        refusal = self._refusal(key)
        if refusal is not None:
            raise refusal
        self._count(key, model)
        return Caller(key.id, key.project)

    def admit_token(self, name: str, *, service: str, model: str, vouched: bool) -> str:
        """Give the key id behind a bearer token, or raise as `admit` does, with a 401 for 400.

        name: what the token stands for, its service account's key id or the token itself.
        vouched: whether the token endpoint gave it out; any other counts as known only when `put` has named it.
        """
        key = self._keys.get(key_id(name))
        if key is None:
            if self._only_known and not vouched:
                raise errors.token_refused(service, "ACCESS_TOKEN_TYPE_UNSUPPORTED")
            return key_id(name)
        refusal = self._refusal(key)
        if refusal is not None:
            raise refusal if refusal.code == 403 else errors.token_refused(service)
        self._count(key, model)
        return key.id

    def _refusal(self, key: Key) -> errors.GeminiError | None:
        if key.state == "suspended":
            return errors.key_suspended(key.project)
        if key.state != "accepted":
            return _REFUSALS[key.state]()
        now = self._clock()
        if key.expires_at is not None and now >= key.expires_at:
            return errors.api_key_expired()
        if now < (key.valid_from or now) or now >= (key.valid_until or now + 1):
            return errors.api_key_invalid()
        return None

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
