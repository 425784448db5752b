"""Files of trees: in which notation one is, and its text."""

import sys
from enum import StrEnum
from pathlib import Path

from tollhouse_admin.failures import Failure, wrong_usage
from tollhouse_admin.plain_text import is_unicode


class Notation(StrEnum):
    """How a file is written."""

    YAML = "yaml"
    CSV = "csv"


_NOTATIONS = {".yaml": Notation.YAML, ".yml": Notation.YAML, ".csv": Notation.CSV}


def notation_of(file: str) -> Notation | None:
    """Return how a file is written by the ending of its name; None where that does not say it."""
    return _NOTATIONS.get(Path(file).suffix.lower())


def read_text(file: str) -> str:
    """Return the text of a file, or what stdin gives for `-`.

    Raises:
        Failure: it cannot be read, or is not UTF-8.
    """
    try:
        text = sys.stdin.read() if file == "-" else _file_text(file)
    except OSError as error:
        raise wrong_usage(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _not_unicode(file) from error
    if not is_unicode(text):
        raise _not_unicode(file)
    return text


def _file_text(file: str) -> str:
    # Line ends within a quoted field are part of it.
    with Path(file).expanduser().open(encoding="utf-8", newline="") as opened:
        return opened.read()


def _not_unicode(file: str) -> Failure:
    return wrong_usage(f"{file} is not UTF-8 text", "A spreadsheet has it as the kind 'CSV UTF-8'.")


def write_text(file: Path, text: str) -> None:
    """Write a file in place of the one of its name.

    Raises:
        Failure: it cannot be written.
    """
    try:
        file.expanduser().write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise wrong_usage(f"{file} cannot be written: {error.strerror}") from error
