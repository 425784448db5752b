"""What ends a command early, and the one line that a person reads about it."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from tollhouse_admin.plain_text import one_line


class ExitCode(IntEnum):
    """Exit codes of `tollhouse`; part of its interface, documented in docs/cli.md."""

    OK = 0
    GENERAL = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    INVALID = 5
    EXHAUSTED = 6
    UNAVAILABLE = 7
    INTERRUPTED = 130


EXIT_CODE_MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.GENERAL: "an internal fault, a check that found something wrong, or a question that was answered with no",
    ExitCode.USAGE: "the command was not understood, or the configuration does not allow it",
    ExitCode.DENIED: "no valid credential, or a permission is missing",
    ExitCode.NOT_FOUND: "there is no such resource, tier or model",
    ExitCode.INVALID: "the request is invalid, or conflicts with what exists",
    ExitCode.EXHAUSTED: "a quota, a budget or Google's rate limit has no room",
    ExitCode.UNAVAILABLE: "the server, or something it needs, did not answer in time",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}

# Shapes of the keys that pass through this program: Tollhouse's own, with its secret, and Google's.
_KEYS = re.compile(r"\bth_[a-z]+_[A-Za-z0-9]+_\S+|\bAIza[0-9A-Za-z_-]{20,}|\bAQ\.[0-9A-Za-z_-]{20,}")


@dataclass(eq=False, kw_only=True)
class Failure(Exception):
    """An expected failure: `reason` for programs, `message` and `advice` for people, `details` for `--verbose`."""

    reason: str
    message: str
    exit_code: ExitCode
    advice: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.line()

    def line(self) -> str:
        """Return the failure as one line without secrets or control characters."""
        parts = [f"error: {self.reason}: {sentence(self.message)}", sentence(self.advice)]
        return one_line(without_keys(" ".join(part for part in parts if part)))


def wrong_usage(message: str, advice: str = "") -> Failure:
    """Return the failure of a command that cannot be carried out as it was typed."""
    return Failure(reason="USAGE", message=message, advice=advice, exit_code=ExitCode.USAGE)


def without_keys(text: str) -> str:
    """Return `text` with everything that looks like an API key blotted out."""
    return _KEYS.sub("[key removed]", text)


def sentence(text: str) -> str:
    """Return `text` with a full stop at its end, or nothing for nothing."""
    stripped = text.strip()
    return stripped if not stripped or stripped[-1] in ".!?" else f"{stripped}."


def report(failure: Failure, *, verbose: bool) -> None:
    """Write the failure to stderr: one line, and with `verbose` its details as JSON below."""
    sys.stderr.write(f"{failure.line()}\n")
    if verbose and failure.details:
        sys.stderr.write(without_keys(json.dumps(failure.details, indent=2, ensure_ascii=False)) + "\n")
