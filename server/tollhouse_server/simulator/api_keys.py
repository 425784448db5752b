"""The API keys of Google's API Keys API, version 2, and when each of them begins and ceases to count."""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tollhouse_server.simulator import errors
from tollhouse_server.simulator.errors import GeminiError, JsonObject
from tollhouse_server.simulator.keys import KeyBook

SERVICE = "apikeys.googleapis.com"
KEY_TYPE = "type.googleapis.com/google.api.apikeys.v2.Key"
_KEY_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MUTABLE = frozenset({"displayName", "restrictions", "annotations"})
_OUTPUT_ONLY = frozenset({"name", "uid", "keyString", "createTime", "updateTime", "deleteTime", "etag"})
_DISPLAY_NAME_LIMIT = 63
_KEYS_LIMIT = 300
"""How many keys a project can have (cloud.google.com/docs/authentication/api-keys)."""


def project_number(project: str) -> str:
    """Give the number of a project, under which Google names its resources, whatever the request called it."""
    if project.isdecimal():
        return project
    return str(10**11 + int.from_bytes(hashlib.sha256(project.encode()).digest()[:8], "big") % (9 * 10**11))


@dataclass(slots=True)
class ManagedKey:
    """One key; `settings` are the fields that a client may change, in JSON names."""

    key_id: str
    project: str
    key_string: str = field(repr=False)
    settings: JsonObject
    uid: str
    created_at: float
    updated_at: float
    deleted_at: float | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"projects/{project_number(self.project)}/locations/global/keys/{self.key_id}"

    @property
    def etag(self) -> str:
        """A checksum of its present state."""
        state = orjson.dumps([self.settings, self.updated_at, self.deleted_at], option=orjson.OPT_SORT_KEYS)
        return f'W/"{hashlib.sha256(state).hexdigest()[:16]}"'

    @property
    def is_blocked(self) -> bool:
        """Whether its restrictions leave the Gemini API out."""
        targets = self.settings.get("restrictions", {}).get("apiTargets") or []
        return bool(targets) and all(each.get("service") != errors.DEVELOPER for each in targets)

    def resource(self) -> JsonObject:
        """Give it as the API shows it, without the key string."""
        shown: JsonObject = {"name": self.name, "uid": self.uid, **self.settings, "etag": self.etag}
        shown |= {"createTime": _timestamp(self.created_at), "updateTime": _timestamp(self.updated_at)}
        if self.deleted_at is not None:
            shown["deleteTime"] = _timestamp(self.deleted_at)
        return shown


class ApiKeys:
    """The keys of every project. What happens to them reaches the Gemini paths after `propagation_seconds`."""

    def __init__(self, book: KeyBook, clock: Callable[[], float]) -> None:
        self._book = book
        self._clock = clock
        self._keys: dict[tuple[str, str], ManagedKey] = {}
        self._projects: dict[str, str] = {}
        self.propagation_seconds = 0.0

    def project(self, name_or_number: str) -> str:
        """Give the id of a project that a request names by id or by number."""
        if not name_or_number.isdecimal():
            self._projects[project_number(name_or_number)] = name_or_number
        return self._projects.get(name_or_number, name_or_number)

    def create(self, project: str, key_id: str | None, settings: JsonObject) -> ManagedKey:
        """Make a key; an id that is taken, by a deleted key too, is a 409."""
        if sum(owner == project for owner, _ in self._keys) >= _KEYS_LIMIT:
            raise GeminiError(429, "RESOURCE_EXHAUSTED", f"The project has {_KEYS_LIMIT} keys, which is the most.")
        uid = str(uuid.uuid4())
        chosen = key_id or uid
        if key_id and (not _KEY_ID.fullmatch(key_id) or _UUID.fullmatch(key_id)):
            raise errors.invalid_argument(f"Invalid key id {key_id!r}.", field="key_id")
        if (project, chosen) in self._keys:
            raise GeminiError(409, "ALREADY_EXISTS", f"Key {chosen} already exists.")
        now = self._clock()
        secret = "AIza" + secrets.token_urlsafe(27)[:35]
        key = ManagedKey(chosen, project, secret, _settings(settings), uid, now, now)
        self._keys[project, chosen] = key
        self._book.put(secret, {"project": project, **_state(key), "valid_from": now + self.propagation_seconds})
        return key

    def get(self, project: str, key_id: str) -> ManagedKey:
        """Give a key, deleted or not, or raise a 404."""
        key = self._keys.get((project, key_id))
        if key is None:
            raise GeminiError(404, "NOT_FOUND", "Requested entity was not found.")
        return key

    def of_project(self, project: str, *, show_deleted: bool) -> list[ManagedKey]:
        """Give the keys of a project in the order they were made."""
        found = [key for (owner, _), key in self._keys.items() if owner == project]
        return [key for key in found if show_deleted or key.deleted_at is None]

    def lookup(self, key_string: str) -> ManagedKey:
        """Give the key of a key string, or raise a 404."""
        for key in self._keys.values():
            if secrets.compare_digest(key.key_string.encode(), key_string.encode()):
                return key
        raise GeminiError(404, "NOT_FOUND", "Requested entity was not found.")

    def update(self, key: ManagedKey, settings: JsonObject, mask: list[str]) -> None:
        """Change the fields that the mask names; an empty one means those given."""
        names = mask or [name for name in settings if name in _MUTABLE]
        changed = _settings({name: settings.get(name) for name in names})
        self._check(key, settings.get("etag"), deleted=False)
        key.settings = {name: value for name, value in key.settings.items() if name not in names} | changed
        key.updated_at = self._clock()
        self._book.put(key.key_string, _state(key))

    def delete(self, key: ManagedKey, etag: str | None) -> None:
        """Delete a key; it can be had back for thirty days."""
        self._check(key, etag, deleted=False)
        key.deleted_at = key.updated_at = self._clock()
        self._book.put(key.key_string, {"valid_until": key.deleted_at + self.propagation_seconds})

    def undelete(self, key: ManagedKey) -> None:
        """Take a deletion back."""
        self._check(key, None, deleted=True)
        key.deleted_at, key.updated_at = None, self._clock()
        valid_from = key.updated_at + self.propagation_seconds
        self._book.put(key.key_string, {"valid_from": valid_from, "valid_until": None})

    def _check(self, key: ManagedKey, etag: str | None, *, deleted: bool) -> None:
        if etag and etag != key.etag:
            raise GeminiError(409, "ABORTED", "The etag provided does not match the current etag of the resource.")
        if (key.deleted_at is not None) != deleted:
            state = "not deleted" if deleted else "deleted"
            raise GeminiError(400, "FAILED_PRECONDITION", f"The key {key.name} is {state}.")


def _settings(given: Mapping[str, Any]) -> JsonObject:
    unknown = sorted(set(given) - _MUTABLE - _OUTPUT_ONLY)
    if unknown:
        raise errors.invalid_argument(f'Invalid JSON payload received. Unknown name "{unknown[0]}".', field=unknown[0])
    if len(given.get("displayName") or "") > _DISPLAY_NAME_LIMIT:
        raise errors.invalid_argument("The display name is too long.", field="key.display_name")
    return {name: value for name, value in given.items() if value and name in _MUTABLE}


def _state(key: ManagedKey) -> JsonObject:
    return {"state": "blocked" if key.is_blocked else "accepted"}


def _timestamp(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
