"""The second wall between secrets and what leaves a process: a key in a log line or an error is blotted out here."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from types import NoneType
from typing import Any, Final
from uuid import UUID

REDACTED = "[redacted]"

_SECRETS = re.compile(
    r"""
      \bth_[A-Za-z0-9]+_[A-Za-z0-9_-]+            # Tollhouse API keys
    | \bAIza[A-Za-z0-9_-]{8,}                     # Google API keys
    | \bAQ\.[A-Za-z0-9_-]{16,}                    # Google API keys bound to a service account
    | \bya29\.[A-Za-z0-9_.-]+                     # Google access tokens
    | \bhv[sbr]\.[A-Za-z0-9_-]+                   # Vault tokens
    | \b[sbr]\.[A-Za-z0-9]{24,}                   # OpenBao tokens
    | (?<=[Bb]earer\ )[^\s'",]+                   # whatever a caller sent as his credential
    | (?<=\bkey=)[^\s&'",]+                       # a key as a parameter in a URL
    | (?<=://)[^\s/:@]*:[^\s/@]+(?=@)             # user and password in a URL
    """,
    re.VERBOSE,
)
_MARKS = (
    *(b"th_", b"AIza", b"AQ.", b"ya29.", b"hvs.", b"hvb.", b"hvr.", b"s.", b"b.", b"r."),
    *(b"earer ", b"key=", b"://"),
)
"""Without one of them in it `_SECRETS` finds nothing in a text; they are looked for twenty times as quickly."""
_SECRET_NAMES = frozenset(
    {"api_key", "authorization", "key_material", "password", "secret", "secret_id", "token", "x-goog-api-key"}
)

_HARMLESS: Final = frozenset({int, float, bool, NoneType, UUID})
_KNOWN_TEXTS: Final = 4096


def redacted(text: str) -> str:
    """Return `text` with everything that looks like a credential replaced."""
    return _SECRETS.sub(REDACTED, text)


def may_hold_secret(text: bytes) -> bool:
    """Tell whether `redacted` could find something in a text, in UTF-8 or JSON; False is certain."""
    return any([mark in text for mark in _MARKS])  # noqa: C419 - no generator: it is asked for each line


def may_be_secret(facts: Mapping[str, Any], ours: Collection[str]) -> bool:
    """Tell whether a value among facts would be redacted; texts named in `ours` are not looked at.

    Other values than texts, numbers and ids count as if they might hold one.
    """
    for name, value in facts.items():
        kind = type(value)
        if name in _SECRET_NAMES:
            return True
        if kind is str:
            if name not in ours and not _is_good(value):
                return True
        elif kind is tuple:
            if not all(map(_is_good, value)):
                return True
        elif kind not in _HARMLESS and name not in ours:
            return True
    return False


@lru_cache(maxsize=_KNOWN_TEXTS)
def _is_good(text: object) -> bool:
    """Tell whether a value is a text in which nothing looks like a credential; most are the same for many calls."""
    return isinstance(text, str) and redacted(text) == text


def redact_event(_logger: Any, _method: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Redact a whole log event (a structlog processor): values by their looks, and by the name they go under."""
    return {name: _redact_named(name, value) for name, value in event.items()}


def redacted_value(value: Any) -> Any:
    """Return a value as JSON has it, redacted throughout; what JSON does not have becomes its repr."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _redact_named(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted_value(inner) for inner in value]
    if isinstance(value, bytes):
        return redacted(value.decode("utf-8", "replace"))
    # Anything else is printed by its repr, so that is what is looked through.
    return redacted(value if isinstance(value, str) else repr(value))


def _redact_named(name: object, value: Any) -> Any:
    if isinstance(name, str) and name.lower() in _SECRET_NAMES and value is not None:
        return REDACTED
    return redacted_value(value)
