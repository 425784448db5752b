"""Keys and tokens, by the prefixes that their issuers gave them so that scanners find them."""

import base64
import binascii
import json
import re
from typing import Final

from tollhouse_server.dlp import checks
from tollhouse_server.dlp.detector import Accept, Detector, Group, Trigger, atomic, edge, whole

_EDGE: Final = edge("0-9A-Za-z_-")
_END: Final = "(?![0-9A-Za-z_-])"

PEM_OPENING: Final = "-----BEGIN "
PEM_MOST_CHARACTERS: Final = 8_400
_BREAK: Final = r"(?:\s|\\[nr])"
_PEM_HEADERS: Final = rf"(?:{_BREAK}{{1,4}}[A-Za-z-]{{1,20}}: [^\n\\]{{1,100}}){{0,4}}"
_PEM_LINES: Final = rf"(?:{_BREAK}{{0,4}}[A-Za-z0-9+/=]{{16,100}}+){{1,75}}"
_PEM_END: Final = (
    rf"(?:(?:{_BREAK}{{0,4}}[A-Za-z0-9+/=]{{1,15}}+)?{_BREAK}{{0,4}}"
    r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
)
_PEM: Final = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    rf"{atomic(_PEM_HEADERS, 'headers')}{atomic(_PEM_LINES, 'lines')}{atomic(_PEM_END, 'end')}"
)


def _credential(
    name: str, description: str, example: str, pattern: str, *literals: str, longest: int = 320, accept: Accept = whole
) -> Detector:
    return Detector(
        name=name,
        group=Group.CREDENTIAL,
        description=description,
        example=example,
        pattern=re.compile(pattern),
        longest=longest,
        accept=accept,
        trigger=Trigger.LITERAL,
        literals=literals,
    )


def _mixed(text: str, start: int, end: int) -> int:
    """Accept what has digits and letters of both cases, as random text has: not the name of a class in a stylesheet."""
    found = text[start:end]
    is_random = any(map(str.isdigit, found)) and any(map(str.isupper, found)) and any(map(str.islower, found))
    return end if is_random else 0


def _jwt(text: str, start: int, end: int) -> int:
    """Accept what has a header that names an algorithm (RFC 7519)."""
    header = text[start:end].partition(".")[0]
    try:
        decoded = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError):
        return 0
    return end if isinstance(decoded, dict) and "alg" in decoded else 0


def _tollhouse(text: str, start: int, end: int) -> int:
    return end if checks.tollhouse_key(text[start:end]) else 0


CREDENTIALS: Final = (
    _credential(
        "GOOGLE_API_KEY",
        "Google API key, of the old form (AIza) or bound to a service account (AQ.).",
        "AIzaSy…",
        rf"{_EDGE}(?:AIza[0-9A-Za-z_-]{{35}}|AQ\.[0-9A-Za-z_-]{{32,120}}){_END}",
        "AIza",
        "AQ.",
    ),
    _credential(
        "GOOGLE_ACCESS_TOKEN",
        "Google OAuth access token (ya29).",
        "ya29.…",
        rf"{_EDGE}ya29\.[0-9A-Za-z_.-]{{16,1200}}",
        "ya29.",
        longest=1_210,
    ),
    _credential(
        "OPENAI_API_KEY",
        "Key of OpenAI, Anthropic and others who use sk-.",
        "sk-proj-Ab0dEf1hIj2kLm3nOp4q",
        rf"{_EDGE}sk-[0-9A-Za-z_-]{{20,240}}{_END}",
        "sk-",
        accept=_mixed,
    ),
    _credential(
        "AWS_ACCESS_KEY",
        "Id of an AWS access key (AKIA, ASIA).",
        "AKIAIOSFODNN7EXAMPLE",
        rf"{_EDGE}(?:AKIA|ASIA)[A-Z0-9]{{16}}{_END}",
        "AKIA",
        "ASIA",
    ),
    _credential(
        "GITHUB_TOKEN",
        "GitHub token (ghp_, gho_, ghu_, ghs_, ghr_, github_pat_).",
        "ghp_1234567890abcdefghijklmnopqrstuvwxyz",
        rf"{_EDGE}(?:gh[pousr]_[0-9A-Za-z]{{36,251}}|github_pat_[0-9A-Za-z_]{{40,251}}){_END}",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
    ),
    _credential(
        "SLACK_TOKEN",
        "Slack token (xoxb-, xoxp- and their like).",
        "xoxb-123456789012-abcdefABCDEF",
        rf"{_EDGE}xox[abeoprs]-[0-9A-Za-z-]{{10,250}}{_END}",
        "xox",
    ),
    _credential(
        "JWT",
        "JSON web token with a header, claims and a signature.",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg",
        rf"{_EDGE}eyJ[0-9A-Za-z_-]{{8,1000}}\.eyJ[0-9A-Za-z_-]{{4,2000}}\.[0-9A-Za-z_-]{{16,1000}}",
        "eyJ",
        longest=4_020,
        accept=_jwt,
    ),
    _credential(
        "TOLLHOUSE_API_KEY",
        "API key of Tollhouse, with its checksum.",
        "th_test_…",
        rf"{_EDGE}th_(?:live|test)_[a-z2-7]{{12}}_[a-z2-7]{{40}}[0-9A-Za-z]{{6}}{_END}",
        "th_live_",
        "th_test_",
        accept=_tollhouse,
    ),
    _credential(
        "PRIVATE_KEY",
        "Private key in PEM, with or without its last line.",
        "-----BEGIN … PRIVATE KEY-----",
        _PEM,
        PEM_OPENING,
        longest=PEM_MOST_CHARACTERS,
    ),
)
