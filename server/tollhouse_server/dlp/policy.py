"""Data policies: what a tenant and its departments let pass, hide or refuse, and what that comes to for one call.

Every scope above a call judges a value by its own rules and its own exceptions; the strictest judgement counts. So
nothing that a department says can weaken what its tenant says.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from tollhouse_server.dlp.custom import CustomPattern, compile_pattern
from tollhouse_server.dlp.detectors import detectors, members
from tollhouse_server.dlp.folding import fold
from tollhouse_server.dlp.lookout import Lookout

CUSTOM_PREFIX: Final = "custom:"
_DIGEST_BYTES: Final = 16


class Direction(StrEnum):
    """Which way a text travels."""

    PROMPT = "PROMPT"
    ANSWER = "ANSWER"


class Action(IntEnum):
    """What is done with a value, the mildest first."""

    ALLOW = 1
    MASK = 2
    BLOCK = 3


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataRule(_Part):
    """What is done with the values of some detectors, groups, or patterns (`custom:<name>`), in some directions."""

    detectors: tuple[str, ...]
    directions: tuple[Direction, ...]
    action: Action


class NamedPattern(_Part):
    """A pattern of the tenant's own; see `custom.py` for what it may ask for."""

    name: str
    pattern: str
    description: str = ""


class DataException(_Part):
    """A value that is let pass, known by its keyed digest alone, or a pattern; for `detectors`, empty for all."""

    digest: str = ""
    pattern: str = ""
    detectors: tuple[str, ...] = ()
    note: str = ""


class DataPolicy(_Part):
    """What one scope says."""

    rules: tuple[DataRule, ...] = ()
    patterns: tuple[NamedPattern, ...] = ()
    exceptions: tuple[DataException, ...] = ()


NO_DATA_POLICY: Final = DataPolicy()


@dataclass(frozen=True, slots=True)
class DigestKey:
    """Makes the digests of exceptions; `secret` is the same on every server and in no database."""

    secret: bytes = field(repr=False)

    def digest(self, tenant_id: str, value: str) -> str:
        """Return the digest of a value: however it is spaced and in whichever case it is written."""
        text = fold(value).text.casefold()
        kept = "".join(one for one in text if one.isalnum() or one in "@._+")
        if not any(one.isalpha() for one in kept):
            kept = "".join(one for one in kept if one.isdigit())
        message = f"{tenant_id}\0{kept}".encode()
        return hmac.digest(self.secret, message, hashlib.sha256)[:_DIGEST_BYTES].hex()


@dataclass(frozen=True, slots=True)
class _Exception:
    digest: str
    pattern: CustomPattern | None
    names: frozenset[str]

    def covers(self, name: str, value: str, digest: str) -> bool:
        if self.names and name not in self.names:
            return False
        return digest == self.digest if self.pattern is None else self.pattern.covers(value)


@dataclass(frozen=True, slots=True)
class _Level:
    """What one scope does with the values of each detector in one direction."""

    actions: Mapping[str, Action]
    exceptions: tuple[_Exception, ...]


class Screen:
    """What is looked for in one direction, and what is done with each value."""

    def __init__(
        self,
        direction: Direction,
        levels: Sequence[_Level],
        patterns: Mapping[str, CustomPattern],
        digest: "_Digest",
    ) -> None:
        self.direction = direction
        self._levels = levels
        self._digest = digest
        self._has_exceptions = any(level.exceptions for level in levels)
        names = {name for level in levels for name in level.actions}
        self._strictest = {name: max(level.actions.get(name, Action.ALLOW) for level in levels) for name in names}
        built_in = [one for name, one in detectors().items() if name in names]
        self.lookout = Lookout(built_in, [(name, patterns[name]) for name in sorted(names & patterns.keys())])

    def judge(self, name: str, value: str) -> Action | None:
        """Return what is done with a value; None where every scope that looks for it makes an exception of it."""
        if not self._has_exceptions:
            return self._strictest[name]
        digest = self._digest(value)
        folded = fold(value).text
        actions = [
            level.actions[name]
            for level in self._levels
            if name in level.actions and not any(one.covers(name, folded, digest) for one in level.exceptions)
        ]
        return max(actions, default=None)


@dataclass(frozen=True, slots=True)
class _Digest:
    key: DigestKey
    tenant_id: str

    def __call__(self, value: str) -> str:
        return self.key.digest(self.tenant_id, value)


@dataclass(frozen=True, slots=True)
class Screens:
    """What a call's prompt and its answer are looked through for; None where nothing is looked for."""

    prompt: Screen | None
    answer: Screen | None


class DataPolicies:
    """The policies of one moment, by the names of their scopes; works out what is in force and remembers it."""

    def __init__(self, policies: Mapping[str, DataPolicy], key: DigestKey) -> None:
        self._policies = {scope: policy for scope, policy in policies.items() if policy.rules}
        self._key = key
        self.tenants = frozenset(scope.split("/", 2)[1] for scope in self._policies)
        self._screens: dict[tuple[str, ...], Screens] = {}

    def screens(self, tenant_id: str, department_path: tuple[str, ...] = ()) -> Screens:
        """Return what is in force in a department, with an empty path for the tenant itself."""
        # By the scopes that say something: the thousand departments that say nothing share what their tenant says.
        speaking = tuple(scope for scope in scopes_above(tenant_id, department_path) if scope in self._policies)
        found = self._screens.get(speaking)
        if found is None:
            levels = [self._policies[scope] for scope in speaking]
            found = self._screens[speaking] = screens_of(tenant_id, levels, self._key)
        return found


def scopes_above(tenant_id: str, department_path: Sequence[str]) -> list[str]:
    """Return the scopes whose policies hold in a department, the topmost first."""
    tenant = f"tenants/{tenant_id}"
    return [tenant, *(f"{tenant}/departments/{one}" for one in department_path)]


def screens_of(tenant_id: str, policies: Iterable[DataPolicy], key: DigestKey) -> Screens:
    """Return what the policies of a tenant and its departments come to, given from the top down."""
    found = list(policies)
    digest = _Digest(key, tenant_id)
    prompt, answer = (_screen(direction, found, digest) for direction in Direction)
    return Screens(prompt, answer)


def _screen(direction: Direction, policies: Sequence[DataPolicy], digest: _Digest) -> Screen | None:
    patterns: dict[str, CustomPattern] = {}
    levels = []
    for depth, policy in enumerate(policies):
        own = _own_names(policy, depth)
        patterns |= {own[one.name]: compile_pattern(one.pattern) for one in policy.patterns}
        actions: dict[str, Action] = {}
        for rule in policy.rules:
            if direction in rule.directions:
                for name in _names(rule.detectors, own):
                    actions[name] = max(rule.action, actions.get(name, rule.action))
        levels.append(_Level(actions, tuple(_exception(one, own) for one in policy.exceptions)))
    if not any(level.actions for level in levels):
        return None
    return Screen(direction, [level for level in levels if level.actions], patterns, digest)


def _own_names(policy: DataPolicy, depth: int) -> dict[str, str]:
    """Return the names of a scope's own patterns; scopes below the topmost may use the same name for another."""
    return {one.name: f"{CUSTOM_PREFIX}{one.name}" + f"#{depth}" * bool(depth) for one in policy.patterns}


def _names(given: Iterable[str], own: Mapping[str, str]) -> set[str]:
    names: set[str] = set()
    for one in given:
        if one.startswith(CUSTOM_PREFIX):
            names.add(own[one.removeprefix(CUSTOM_PREFIX)])
        else:
            # Absent: a later version of the server knows a detector that this one does not.
            names |= members().get(one, frozenset())
    return names


def _exception(given: DataException, own: Mapping[str, str]) -> _Exception:
    pattern = compile_pattern(given.pattern) if given.pattern else None
    return _Exception(given.digest, pattern, frozenset(_names(given.detectors, own)))


def shown(name: str) -> str:
    """Return a detector's name as people and records see it."""
    return name.partition("#")[0]


def label_of(name: str) -> str:
    """Return what stands in a token for the values of a detector."""
    return shown(name).removeprefix(CUSTOM_PREFIX).upper().replace("-", "_")
