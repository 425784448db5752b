"""Texts in CSV: what users write is words, also in a spreadsheet that would reckon with it."""

from typing import Final

_BEGINS_OF_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def no_formula(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: with an apostrophe before what would begin one."""
    return f"'{text}" if text.startswith(_BEGINS_OF_FORMULAS) else text
