"""How much an error may say: gRPC hands statuses over as headers, and drops the whole answer if they are too long.

Clients take 8 KiB by default (gRPC's own soft limit). The sentence is there twice, for itself with three bytes for each
byte that is not printable ASCII, and in the details, which are in base64.
"""

from collections.abc import Sequence
from typing import Final

from tollhouse_server.errors import FieldViolation

MESSAGE_BYTES: Final = 1800
FIELD_BYTES: Final = 300
"""For each value of the error's metadata."""

VIOLATIONS_BYTES: Final = 1800
_VIOLATION_BYTES: Final = 900
_AROUND_VIOLATION_BYTES: Final = 12
_END: Final = "..."


def shortened(text: str, most_bytes: int) -> str:
    """Return a text, or as much of its beginning as takes so many bytes of a header, with dots after it."""
    taken = 0
    for place, letter in enumerate(text):
        taken += 1 if " " <= letter <= "~" and letter != "%" else 3 * len(letter.encode(errors="replace"))
        if taken > most_bytes:
            return text[: max(0, place - len(_END))] + _END
    return text


def first_violations(violations: Sequence[FieldViolation]) -> list[FieldViolation]:
    """Return as many violations as an error can carry, the first ones; then one that says how many more there are."""
    found: list[FieldViolation] = []
    left = VIOLATIONS_BYTES
    for violation in violations:
        path = shortened(violation.path, _VIOLATION_BYTES // 3)
        description = shortened(violation.description, _VIOLATION_BYTES)
        left -= len(path.encode()) + len(description.encode()) + _AROUND_VIOLATION_BYTES
        if left < 0:
            return [*found, FieldViolation(path="", description=f"and {len(violations) - len(found)} more")]
        found.append(FieldViolation(path=path, description=description))
    return found
