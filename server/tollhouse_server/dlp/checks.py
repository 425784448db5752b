"""Check digits: what tells a card, an account or a person's number from any other row of digits.

Sources: ISO/IEC 7812-1 (Luhn), ISO 13616 and ISO/IEC 7064 (IBAN, resident id, German tax id), the published rules of
the issuing authorities for the rest.
"""

import zlib
from datetime import date
from itertools import pairwise
from typing import Final

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_RESIDENT_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_RESIDENT_LETTERS: Final = "10X98765432"
_DNI_LETTERS: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# Multiplication in the dihedral group D5, and the permutation of Verhoeff's scheme.
_D5: Final = tuple(
    tuple((i + j) % 5 if i < 5 and j < 5 else (i + j) % 5 + 5 if i < 5 else (i - j) % 5 + 5 if j < 5 else (i - j) % 5
          for j in range(10))
    for i in range(10)
)  # fmt: skip
_PERMUTATION: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def luhn(digits: str) -> bool:
    """Tell whether the last digit is right by ISO/IEC 7812-1."""
    turned = digits[::-1]
    return (sum(map(int, turned[::2])) + sum(_DOUBLED[int(one)] for one in turned[1::2])) % 10 == 0


def mod_97(iban: str) -> bool:
    """Tell whether an IBAN without spaces has the right check digits."""
    return int("".join(str(int(one, 36)) for one in iban[4:] + iban[:4])) % 97 == 1


def mod_11_10(digits: str) -> bool:
    """Tell whether the last digit is right by ISO/IEC 7064 MOD 11,10."""
    rest = 10
    for one in digits[:-1]:
        total = (int(one) + rest) % 10 or 10
        rest = total * 2 % 11
    return (11 - rest) % 10 == int(digits[-1])


def verhoeff(digits: str) -> bool:
    """Tell whether the last digit is right by Verhoeff's scheme."""
    check = 0
    for place, one in enumerate(reversed(digits)):
        digit = int(one)
        for _ in range(place % 8):
            digit = _PERMUTATION[digit]
        check = _D5[check][digit]
    return check == 0


def resident_id(number: str) -> bool:
    """Tell whether 18 characters are a Chinese resident id: a birthday that was, and the check of GB 11643-1999."""
    if not 11 <= int(number[:2]) <= 91 or not _is_day(number[6:14]):
        return False
    total = sum(weight * int(one) for weight, one in zip(_RESIDENT_WEIGHTS, number, strict=False))
    return _RESIDENT_LETTERS[total % 11] == number[17].upper()


def german_tax_id(digits: str) -> bool:
    """Tell whether 11 digits are an Identifikationsnummer: one digit is there twice or three times among ten."""
    counts = sorted((digits[:10].count(one) for one in set(digits[:10])), reverse=True)
    is_in_threes = any(
        first == second == third for first, second, third in zip(digits, digits[1:], digits[2:10], strict=False)
    )
    return counts[0] in (2, 3) and counts[1:2] == [1] and not is_in_threes and mod_11_10(digits)


def french_nir(number: str) -> bool:
    """Tell whether 15 characters are a French social security number with its key; 2A and 2B are Corsica."""
    corsican = {"2A": (19, 0), "2B": (18, 0)}.get(number[5:7])
    digits = f"{number[:5]}{corsican[0]}{number[7:13]}" if corsican else number[:13]
    return 97 - int(digits) % 97 == int(number[13:])


def spanish_id(number: str) -> bool:
    """Tell whether nine characters are a Spanish DNI or NIE: the letter is the number modulo 23."""
    digits = number[:-1]
    if digits[0] in "XYZ":
        digits = f"{'XYZ'.index(digits[0])}{digits[1:]}"
    return _DNI_LETTERS[int(digits) % 23] == number[-1]


def brazilian_cpf(digits: str) -> bool:
    """Tell whether 11 digits are a CPF by its two check digits; one digit eleven times is none."""
    if len(set(digits)) == 1:
        return False
    for count in (9, 10):
        total = sum(int(one) * (count + 1 - place) for place, one in enumerate(digits[:count]))
        if total * 10 % 11 % 10 != int(digits[count]):
            return False
    return True


def is_varied(digits: str) -> bool:
    """Tell whether digits are neither all the same nor simply counted up: such are examples, not numbers."""
    return len({(int(second) - int(first)) % 10 for first, second in pairwise(digits)}) > 1


def tollhouse_key(text: str) -> bool:
    """Tell whether the last six characters of a Tollhouse key are its checksum, as `identity/keys.py` makes it."""
    value, found = zlib.crc32(text[:-6].encode()), ""
    for _ in range(6):
        value, digit = divmod(value, len(_BASE62))
        found = _BASE62[digit] + found
    return found == text[-6:]


def _is_day(text: str) -> bool:
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True
