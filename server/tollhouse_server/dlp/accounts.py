"""Payment cards and bank accounts."""

import re
from typing import Final

from tollhouse_server.dlp import checks
from tollhouse_server.dlp.detector import AFTER, BEFORE, Detector, Group, edge

# Issuer identification ranges as the card schemes publish them: prefix from, prefix to, lengths.
_ISSUERS: Final = (
    (4, 4, (16, 19)),
    (51, 55, (16,)),
    (2221, 2720, (16,)),
    (34, 34, (15,)),
    (37, 37, (15,)),
    (300, 305, (14, 16)),
    (36, 36, (14, 16)),
    (38, 39, (14, 16)),
    (6011, 6011, (16, 19)),
    (644, 649, (16, 19)),
    (65, 65, (16, 19)),
    (3528, 3589, (16, 19)),
    (62, 62, (16, 17, 18, 19)),
    (2200, 2204, (16, 19)),
    (50, 50, (16, 19)),
    (56, 58, (16, 19)),
    (6304, 6304, (16, 19)),
    (6759, 6763, (16, 19)),
)

# Lengths of the registry that SWIFT keeps for ISO 13616.
_IBAN_LENGTHS: Final = {
    **{"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28},
    **{"CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18},
    **{"FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22},
    **{"IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20},
    **{"LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15},
    **{"PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19},
    **{"SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20},
}

_SEPARATORS: Final = str.maketrans("", "", " -.")


def _card(text: str, start: int, end: int) -> int:
    digits = text[start:end].translate(_SEPARATORS)
    known = any(
        len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high for low, high, lengths in _ISSUERS
    )
    return end if known and checks.luhn(digits) else 0


def _iban(text: str, start: int, end: int) -> int:
    """Take as many characters as the country's accounts have, whatever words follow them."""
    length = _IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    at = start
    for at in range(start, end):
        length -= text[at] not in " -"
        if not length:
            break
    at += 1
    following = text[at : at + 1]
    if length or (following.isascii() and following.isalnum()):
        return 0
    return at if checks.mod_97(text[start:at].translate(_SEPARATORS)) else 0


ACCOUNTS: Final = (
    Detector(
        name="PAYMENT_CARD",
        group=Group.PAYMENT,
        description="Payment card number: the prefix of an issuer, its length, and the Luhn digit.",
        example="4111 1111 1111 1111",
        pattern=re.compile(
            BEFORE + r"(?:[0-9]{14,19}"
            r"|[0-9]{4}([ .-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?"
            r"|3[0-9]{3}([ .-])[0-9]{6}\2[0-9]{4,5})" + AFTER
        ),
        longest=23,
        fewest_digits=14,
        accept=_card,
    ),
    Detector(
        name="IBAN",
        group=Group.PAYMENT,
        description="International bank account number: the country's length and the check digits.",
        example="DE89 3704 0044 0532 0130 00",
        pattern=re.compile(
            edge("0-9A-Za-z") + "[A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]{4}){2,7}(?:[ -]?[0-9A-Za-z]{1,3})?"
        ),
        longest=44,
        accept=_iban,
        reach=(18, 26),
    ),
)
