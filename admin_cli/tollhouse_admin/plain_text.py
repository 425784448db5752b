"""Makes text from elsewhere safe to show: a display name or a model's answer must not steer the terminal."""

import unicodedata


def printable(text: str) -> str:
    """Return `text` without control characters, which could move the cursor or rewrite the screen; lines are kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in "\n\t" or unicodedata.category(char) != "Cc" else "�" for char in text)


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
