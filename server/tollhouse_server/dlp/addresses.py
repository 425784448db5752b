"""E-mail and IP addresses."""

import ipaddress
import re
from typing import Final

from tollhouse_server.dlp.detector import CONTEXT_CHARACTERS, Detector, Group, Trigger, atomic, edge, whole

# Letters of European alphabets may be in addresses; Chinese characters around one belong to the sentence.
_LETTERS: Final = "0-9A-Za-z\u00c0-\u024f"
_DOMAIN: Final = rf"(?:@|%40)(?:[{_LETTERS}-]{{1,63}}\.){{1,8}}[A-Za-z]{{2,24}}(?![{_LETTERS}])"
_AT_DOMAIN: Final = re.compile(_DOMAIN)
_LOCAL: Final = rf"(?:[{_LETTERS}._+'-]|%(?!40)){{0,63}}"
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_LOCAL_CHARACTER: Final = re.compile(rf"[{_LETTERS}._%+'-]")
_MOST_LOCAL: Final = 64
# A character that is none of an address, as JSON or a URL writes it.
_ESCAPE: Final = re.compile(r"\\(?:[bfnrt]|u[0-9A-Fa-f]{4})|%(?:2[0267CFcf]|3[A-Fa-f])")
_VERSION: Final = re.compile(r"(?:versions?|release|ver\.?|build|v\.?)[ :=]{0,2}$", re.IGNORECASE)


def _local_part(text: str, at: int) -> int:
    """Return where the address begins whose @ is at a place; quotes and the like before it are not part of it."""
    if not _AT_DOMAIN.match(text, at):
        return -1
    start = at
    while start > 0 and at - start <= _MOST_LOCAL and _LOCAL_CHARACTER.match(text, start - 1):
        start -= 1
    # The backslash ended it already, the letters of its escape did not.
    for escape in _ESCAPE.finditer(text, max(0, start - 1), at):
        start = escape.end()
    while start < at and text[start] in ".%+'-":
        start += 1
    return start if 0 < at - start <= _MOST_LOCAL else -1


def _ip(text: str, start: int, end: int) -> int:
    """Accept addresses; four numbers after the word version are one, and names joined by colons have no digit."""
    if _VERSION.search(text, max(0, start - CONTEXT_CHARACTERS), start):
        return 0
    try:
        ipaddress.ip_address(text[start:end])
    except ValueError:
        return 0
    return end if any(map(str.isdigit, text[start:end])) else 0


ADDRESSES: Final = (
    Detector(
        name="EMAIL",
        group=Group.CONTACT,
        description="E-mail address.",
        example="jane.doe@example.com",
        pattern=re.compile(rf"[{_LETTERS}_]{atomic(_LOCAL, 'local')}{_DOMAIN}"),
        longest=340,
        accept=whole,
        trigger=Trigger.LITERAL,
        literals=("@", "%40"),
        begin=_local_part,
    ),
    Detector(
        name="IP_ADDRESS",
        group=Group.NETWORK,
        description="IPv4 or IPv6 address.",
        example="203.0.113.7",
        pattern=re.compile(
            rf"{edge('0-9A-Za-z._:-')}(?:{_OCTET}(?:\.{_OCTET}){{3}}(?![0-9A-Za-z_-])(?!\.[0-9])"
            rf"|[0-9A-Fa-f]{{0,4}}+{atomic('(?::[0-9A-Fa-f]{0,4}+){2,7}', 'parts')}(?![0-9A-Za-z:_-]))"
        ),
        longest=48,
        accept=_ip,
        trigger=Trigger.ALWAYS,
    ),
)
