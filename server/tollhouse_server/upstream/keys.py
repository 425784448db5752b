"""What the keys of upstreams look like: one word, or a service account's JSON."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from tollhouse_server.upstream.protocol import UpstreamKind

_WORD = re.compile("[!-~]+")
_SERVICE_ACCOUNT_MEMBERS = ("client_email", "private_key", "token_uri")


class UnusableKeyError(ValueError):
    """A key with which no call can be made; the text says why, and quotes nothing of it."""


def is_json(key: str) -> bool:
    """Tell whether a key is JSON, as service accounts' keys are, and no word."""
    return key.lstrip().startswith("{")


def service_account(key: str) -> Mapping[str, Any]:
    """Return the members of a service account's key.

    Raises:
        UnusableKeyError: it is none.
    """
    try:
        account = orjson.loads(key)
    except orjson.JSONDecodeError:
        raise UnusableKeyError("the key is neither a token nor JSON") from None
    named = [account.get(name) for name in _SERVICE_ACCOUNT_MEMBERS]
    if account.get("type") != "service_account" or not all(isinstance(one, str) for one in named):
        raise UnusableKeyError("the key is not a service account's")
    return account  # type: ignore[no-any-return]


def require_usable(key: str, kind: UpstreamKind) -> None:
    """Refuse a key that cannot be sent to an upstream of a kind; white space around it is not sent.

    Raises:
        UnusableKeyError: calls with it would fail.
    """
    if not is_json(key):
        if not _WORD.fullmatch(key.strip()):
            raise UnusableKeyError("the key is not one word of printable ASCII: is it one key, and whole?")
    elif kind is UpstreamKind.VERTEX:
        service_account(key)
    else:
        raise UnusableKeyError("the key is JSON, and upstreams of this kind take a word: JSON is for vertex")
