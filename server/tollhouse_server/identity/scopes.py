"""What a credential may be narrowed to: single permissions, and sets of them that have a name."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

_USAGE: Final = frozenset({"usage.get", "usage.list"})

SETS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "generation": _USAGE
        | {
            "generation.generate",
            "generation.embed",
            "generation.countTokens",
            "generation.resolveRoute",
            "generation.reportOnDeviceUsage",
        },
        "usage": _USAGE,
    }
)
"""Named sets; a test holds that `generation` has every permission of calls."""


def permissions_in(scopes: Iterable[str]) -> frozenset[str] | None:
    """Return all that a credential with these scopes may be used for; None, which narrows nothing, without scopes."""
    found = [SETS.get(scope, frozenset({scope})) for scope in scopes]
    return frozenset().union(*found) if found else None
