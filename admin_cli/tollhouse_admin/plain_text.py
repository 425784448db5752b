"""Makes text from elsewhere safe to show: a display name or a model's answer must not steer the terminal."""

import unicodedata
from typing import Final

_STEERING: Final = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What ends a line, or turns the direction of writing: a name that has it could make the rest of its line say something
else. The marks that right-to-left scripts need are not among them."""


def printable(text: str) -> str:
    """Return `text` without what could move the cursor, rewrite the screen or turn its words; lines are kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("�" if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return char in _STEERING or (unicodedata.category(char) == "Cc" and char not in "\n\t")


def is_unicode(text: str) -> bool:
    """Tell whether text can be sent: bytes that are no UTF-8, and escapes of half a character, leave what cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def one_line(text: str) -> str:
    """Return `text` printable and with every run of white space as one blank."""
    return " ".join(printable(text).split())
