"""Takes secrets from a file, from a pipe or from a prompt; never from the command line, which others can see."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tollhouse_admin.failures import wrong_usage

KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="Read the key from a file; - is stdin.")
]


def read_key(file: Path | None, *, prompt: str) -> str:
    """Return the key in `file`, on stdin when that is `-` or a pipe, else what is typed at a prompt without echo.

    Raises:
        Failure: the file cannot be read, or nothing is in it.
    """
    text = _text(file, prompt).strip()
    if not text:
        raise wrong_usage("The key is empty", "Give it with --key-file FILE, on stdin, or at the prompt.")
    return text


def _text(file: Path | None, prompt: str) -> str:
    if file is None and sys.stdin.isatty():
        typed: str = typer.prompt(prompt, hide_input=True, err=True)
        return typed
    if file is None or str(file) == "-":
        return sys.stdin.read()
    try:
        return file.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise wrong_usage(f"The key file {file} cannot be read") from error


@contextmanager
def new_key_file(file: Path) -> Iterator[Callable[[str], None]]:
    """Make a file that only the user may read, and yield what writes a key to it; without a key it is removed again.

    Raises:
        Failure: the file exists, or cannot be made.
    """
    try:
        descriptor = os.open(file.expanduser(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        advice = "Name a file that does not exist yet."
        raise wrong_usage(f"{file} cannot be written: {error.strerror}", advice) from error
    with os.fdopen(descriptor, "w") as stream:
        try:
            yield lambda key: print(key, file=stream, flush=True)
        finally:
            if stream.tell() == 0:
                file.expanduser().unlink()
