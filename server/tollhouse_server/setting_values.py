"""How values of settings are read and looked at: JSON, names and URLs. ValueError says what is wrong with one."""

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr

Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 means a free one."""

UPSTREAM_KINDS = ("gemini_api", "vertex", "openai_compatible")
"""The kinds of upstream. The name of an upstream address is its kind, or begins with it and a hyphen."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ADDRESS_NAME = re.compile(rf"({'|'.join(UPSTREAM_KINDS)})(-[a-z0-9-]{{1,40}})?")
_PLACEHOLDER = "{region}"


def text_of(value: object) -> str:
    """Return a setting as its variable says it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return json.dumps({name: text_of(entry) for name, entry in value.items()})
    return json.dumps(value) if isinstance(value, tuple) else str(value)


def decoded(value: Any) -> Any:
    """Return what a JSON text says; a value that is no text stays. Errors never quote it: it may hold a password."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_without_duplicates)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("is not JSON") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = next((name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index])), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is there twice")
    return dict(pairs)


def checked_entries(value: Any, check: Callable[[str, str], str]) -> dict[str, Any]:
    """Return a JSON object of names and URLs, each looked at by `check`; what is wrong is told by the entry's name."""
    entries = decoded(value)
    if not isinstance(entries, Mapping):
        raise ValueError("must be a JSON object of names and URLs")
    checked: dict[str, Any] = {}
    for name, entry in entries.items():
        url = entry.get_secret_value() if isinstance(entry, SecretStr) else entry
        if not isinstance(url, str):
            raise ValueError(f"{name!r} must be a URL")
        checked[name] = check(name, url)
    return checked


def upstream_address(name: str, url: str) -> str:
    """Return the URL of an upstream, or raise ValueError where its name or it is none."""
    if not _ADDRESS_NAME.fullmatch(name):
        kinds = ", ".join(UPSTREAM_KINDS)
        raise ValueError(f"{name!r} must be a kind of upstream ({kinds}), or begin with one and a hyphen")
    if name == "gemini_api":
        raise ValueError("'gemini_api' is set by TOLLHOUSE_GEMINI_BASE_URL")
    parts = _split(name, url.replace(_PLACEHOLDER, "region"))
    if "{" in url.replace(_PLACEHOLDER, "") or "}" in url.replace(_PLACEHOLDER, ""):
        raise ValueError(f"{name!r} may hold {_PLACEHOLDER} and no other braces")
    if parts.username is not None or parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError(f"{name!r} must be a URL without user, query and fragment")
    if parts.scheme != "https" and not (_is_loopback(parts) or name.startswith("openai_compatible")):
        raise ValueError(f"{name!r} must be an https URL")
    return url.rstrip("/")


def egress_proxy(name: str, url: str) -> str:
    """Return the URL of a proxy, or raise ValueError where its name or it is none."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be lower-case letters, digits and hyphens, a letter first")
    parts = _split(name, url)
    if parts.port is None or parts.path.strip("/") or "?" in url or "#" in url:
        raise ValueError(f"{name!r} must be a URL of the form http(s)://[user:password@]host:port")
    return url.rstrip("/")


def check_token_url(url: Any) -> None:
    """Raise ValueError unless it is an https URL, or one of this machine."""
    if not isinstance(url, str):
        raise ValueError("must be a JSON list of URLs")
    parts = _split(url, url)
    if parts.scheme != "https" and not _is_loopback(parts):
        raise ValueError(f"{url!r} must be an https URL")


def collector_url(url: str) -> str:
    """Return the URL of a collector, or raise ValueError where it is none, or says a password."""
    parts = _split("the collector's address", url)
    if parts.username is not None or "?" in url or "#" in url:
        raise ValueError("must be a URL without user, query and fragment")
    return url


def is_kept_private(url: str) -> bool:
    """Tell whether what is sent to a URL cannot be read on the way."""
    parts = urlsplit(url)
    return parts.scheme == "https" or _is_loopback(parts)


def _split(name: str, url: str) -> SplitResult:
    """Return the parts of a URL that has a scheme, a host, and nothing that could end up as part of another request."""
    if not url.isascii() or not url.isprintable() or any(character in url for character in ' \\"<>^`|'):
        raise ValueError(f"{name!r} must be a URL")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{name!r} must be a URL of the form http(s)://host[:port]")
    return parts


def _is_loopback(parts: SplitResult) -> bool:
    """Tell whether a URL stays on this machine, by its name or its number."""
    try:
        return parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
