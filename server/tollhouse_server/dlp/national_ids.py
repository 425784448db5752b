"""Numbers that states give to persons, as data: pattern, check, an example that was never issued."""

import re
from collections.abc import Callable
from typing import Final

from tollhouse_server.dlp import checks
from tollhouse_server.dlp.detector import AFTER, BEFORE, Accept, Detector, Group, checked, whole

_EXAMPLE_SSNS: Final = frozenset({"078051120", "219099999"})
"""Printed in advertisements; the Social Security Administration lists them as nobody's."""


def _national(
    name: str, description: str, example: str, pattern: str, accept: Accept = whole, *, digits: int
) -> Detector:
    return Detector(
        name=name,
        group=Group.NATIONAL_ID,
        description=description,
        example=example,
        pattern=re.compile(BEFORE + pattern + AFTER),
        longest=24,
        accept=accept,
        fewest_digits=digits,
    )


def _not_an_example(digits: str) -> bool:
    return digits not in _EXAMPLE_SSNS


def _by(check: Callable[[str], bool]) -> Accept:
    return checked(check)


NATIONAL_IDS: Final = (
    _national(
        "CN_RESIDENT_ID",
        "Chinese resident identity number: 18 characters with a birthday and a check character.",
        "11010519491231002X",
        r"[1-9][0-9]{5}[ -]?(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[ -]?[0-9]{3}[0-9Xx]",
        _by(checks.resident_id),
        digits=17,
    ),
    _national(
        "US_SSN",
        "US social security number, written with hyphens or spaces; numbers never issued are left out.",
        "536-22-8145",
        r"(?!000|666|9)[0-9]{3}([ -])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}",
        _by(_not_an_example),
        digits=9,
    ),
    _national(
        "DE_TAX_ID",
        "German Identifikationsnummer: 11 digits with a check digit.",
        "86 095 742 719",
        r"[1-9][0-9]( ?)[0-9]{3}\1[0-9]{3}\1[0-9]{3}",
        _by(checks.german_tax_id),
        digits=11,
    ),
    _national(
        "FR_NIR",
        "French social security number: 13 characters and a key of two digits.",
        "2 55 08 14 168 025 38",
        r"[12]( ?)[0-9]{2}\1(?:0[1-9]|1[0-2]|[2-9][0-9])\1(?:2[AB]|[0-9]{2})\1[0-9]{3}\1[0-9]{3} ?[0-9]{2}",
        _by(checks.french_nir),
        digits=14,
    ),
    _national(
        "UK_NINO",
        "British National Insurance number; it has no check digit.",
        "AB 12 34 56 C",
        r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]( ?)[0-9]{2}\1[0-9]{2}\1[0-9]{2}\1[A-D]",
        digits=6,
    ),
    _national(
        "ES_DNI",
        "Spanish DNI or NIE, with its check letter.",
        "12345678Z",
        r"(?:[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}|[XYZ]-?[0-9]{7})[ -]?[A-HJ-NP-TV-Z]",
        _by(checks.spanish_id),
        digits=7,
    ),
    _national(
        "IN_AADHAAR",
        "Indian Aadhaar number: 12 digits with a Verhoeff check digit.",
        "2345 6789 0124",
        r"[2-9][0-9]{3}([ -]?)[0-9]{4}\1[0-9]{4}(?![ -][0-9]{4})",
        _by(checks.verhoeff),
        digits=12,
    ),
    _national(
        "BR_CPF",
        "Brazilian CPF, written with its points and hyphen: 11 digits, two of them checks.",
        "111.444.777-35",
        r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}",
        _by(checks.brazilian_cpf),
        digits=11,
    ),
)
