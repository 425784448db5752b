"""Phone numbers: international ones by their plus sign, national ones by forms that little else is written in."""

import re
from typing import Final

from tollhouse_server.dlp.detector import AFTER, BEFORE, Detector, Group, atomic, edge

_FEWEST_DIGITS, _MOST_DIGITS = 8, 15

# Digits of a number with its country code, where all numbers of a country have about as many (ITU-T E.164 plans).
_MOST_BY_COUNTRY: Final = {
    **{"1": 11, "7": 11, "31": 11, "32": 11, "33": 11, "34": 11, "41": 11, "44": 12, "45": 10, "46": 12, "47": 10},
    **{"48": 11, "61": 11, "65": 10, "81": 12, "82": 12, "86": 13, "90": 12, "91": 12, "852": 11, "853": 11, "886": 12},
}

_GROUP: Final = r"[ .\-/]?(?:\([0-9]{1,5}+\)|[0-9]{1,12}+)"
_GROUPS: Final = rf"(?:{_GROUP}){{1,7}}"
_INTERNATIONAL: Final = (
    rf"{edge('0-9A-Za-z+')}"
    r"(?:(?:\+|%2[Bb])[1-9][0-9]{0,2}"
    rf"{atomic(_GROUPS, 'plus')}|00[1-9][0-9]{{0,2}}[ .\-/(]{atomic(_GROUPS, 'zeros')})"
)
_NATIONAL: Final = (
    # North America: (415) 555-2671, 415-555-2671, 1.415.555.2671
    r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}",
    # Chinese mobile numbers: 13800138000, 138-0013-8000, 86 138 0013 8000
    r"(?:\((?:00)?86\)[ -]?|(?:00)?86[ -]?)?1[3-9][0-9](?P<gap>[ -]?)[0-9]{4}(?P=gap)[0-9]{4}",
    # Chinese land lines: 010-62345678, (0755)86013388
    r"(?:0[1-9][0-9]{1,2}-|\(0[1-9][0-9]{1,2}\) ?)[2-9][0-9]{6,7}",
    # France: 06 12 34 56 78
    r"0[1-9](?:[ .-][0-9]{2}){4}",
    # Germany, Austria, Switzerland, Britain: 030/901820, 0171 2345678, 020 7946 0958
    r"0[1-9][0-9]{1,4}[ /-][0-9]{3,8}(?:[ -][0-9]{1,5})?",
    # Japan, Korea, and what is written like them: 03-1234-5678
    r"0[1-9][0-9]{0,2}-[0-9]{3,4}-[0-9]{4}",
)
_PATTERN: Final = re.compile("|".join((_INTERNATIONAL, *(f"{BEFORE}(?:{one}){AFTER}" for one in _NATIONAL))))


def _accept(text: str, start: int, end: int) -> int:
    """Take whole groups, as many as a number of that country can have."""
    has_plus = text[start] in "+%"
    # What a URL writes for the plus sign has a digit.
    start += 2 * (text[start] == "%")
    digits = "".join(one for one in text[start:end] if "0" <= one <= "9")
    if not has_plus and not digits.startswith("00"):
        return end if _FEWEST_DIGITS <= len(digits) <= _MOST_DIGITS else 0
    digits = digits.removeprefix("00")
    most = next((n for code, n in _MOST_BY_COUNTRY.items() if digits.startswith(code)), _MOST_DIGITS)
    # "+49 (0) 30" has a digit that is not dialled.
    most += (text.find("(0)", start, end) >= 0) + 2 * (not has_plus)
    return _whole_groups(text, start, end, most)


def _whole_groups(text: str, start: int, end: int, most: int) -> int:
    count, last, last_count = 0, 0, 0
    for at in range(start, end + 1):
        is_digit = at < end and "0" <= text[at] <= "9"
        if not is_digit and at > start and "0" <= text[at - 1] <= "9" and count <= most:
            last, last_count = at, count
        count += is_digit
    following = text[last : last + 1]
    is_cut_short = following.isascii() and following.isalnum()
    return 0 if last_count < _FEWEST_DIGITS or is_cut_short else last


PHONE: Final = Detector(
    name="PHONE",
    group=Group.CONTACT,
    description="Phone number: international with its plus sign, or national in a common form; Chinese mobile numbers.",
    example="+86 138 0013 8000",
    pattern=_PATTERN,
    longest=120,
    accept=_accept,
    fewest_digits=_FEWEST_DIGITS,
)
