"""What must never get into the repository."""

import gzip
import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, place, tracked_files

FORBIDDEN = {
    "a path of somebody's machine": re.compile(rb"/(home|Users|work|workspace)/[A-Za-z]"),
    "a package registry's host": re.compile(rb"pypi[.]org|pythonhosted[.]org|registry[.]npmjs|deb[.]debian[.]org"),
    "a Google key": re.compile(rb"AIza[A-Za-z0-9_-]{35}|ya29[.][A-Za-z0-9_-]{20}"),
    "a Tollhouse key": re.compile(rb"\bth_[a-z]+_[A-Za-z0-9]{8,}_[A-Za-z0-9]{24,}"),
    "a Vault token": re.compile(rb"\bhv[sbr][.][A-Za-z0-9_-]{24,}"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE" + rb" KEY-----"),
}


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tracked_files_hold_no(what: str) -> None:
    """Once it is pushed it is everybody's."""
    found = [
        f"{place(path)}: {match.group()[:12]!r}"
        for path in tracked_files()
        if (match := FORBIDDEN[what].search(content(path)))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("what", "sample"),
    [
        ("a path of somebody's machine", "/ho" + "me/jane/x"),
        ("a package registry's host", "files.python" + "hosted.org"),
        ("a Google key", "AI" + "za" + "x" * 35),
        ("a Tollhouse key", "th_" + "live_" + "a" * 12 + "_" + "b" * 32),
        ("a Vault token", "hv" + "s." + "a" * 24),
        ("a private key", "-----BEGIN " + "PRIVATE KEY-----"),
    ],
)
def test_pattern_finds_what_it_forbids(what: str, sample: str) -> None:
    """A pattern that matches nothing would always hold."""
    assert FORBIDDEN[what].search(sample.encode())


def test_state_of_a_run_is_not_tracked() -> None:
    """`.tollhouse/` has keys, passwords and the unseal key."""
    ignored = (ROOT / ".gitignore").read_text().split()

    assert {".tollhouse/", ".venv/"} <= set(ignored)
    assert [place(path) for path in tracked_files() if ".tollhouse" in path.parts or path.name == ".env"] == []
