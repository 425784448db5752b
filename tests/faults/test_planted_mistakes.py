"""Each mistake of tests/faults/mistakes, planted in a copy of the server, must be caught by the test that it names.

A mistake that survives is a test that is missing; one whose old text is gone is to be planted anew. Some 6 s for each.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mistakes import ROOT, Mistake, booking, calls, charges, verdicts

ALL = (*verdicts.MISTAKES, *booking.MISTAKES, *calls.MISTAKES, *charges.MISTAKES)
_COPIED = ("pyproject.toml", "protos", "server", "admin_cli", "tests")
_NO_SHRINKING = "tests.faults.mistakes.no_shrinking"
_FAILED, _PASSED = 1, 0
_SECONDS, _ALL_SECONDS = 240, 1200


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """A copy of what the tests need, in which anything may be broken."""
    directory = Path(tempfile.mkdtemp(prefix="tollhouse-mistakes-"))
    # PostgreSQL's account must be able to pass.
    directory.chmod(0o711)
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, directory / name)
    yield directory
    shutil.rmtree(directory)


def run_tests(copy: Path, *tests: str, seconds: float = _SECONDS) -> "subprocess.CompletedProcess[str]":
    """Run tests in the copy, up to the first that fails."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", _NO_SHRINKING, *tests],
        cwd=copy,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def test_the_tests_pass_where_nothing_is_broken(copy: Path) -> None:
    """A test that fails anyway catches nothing."""
    ended = run_tests(copy, *sorted({mistake.caught_by for mistake in ALL}), seconds=_ALL_SECONDS)

    assert ended.returncode == _PASSED, ended.stdout[-3000:]


@pytest.mark.parametrize("mistake", [pytest.param(mistake, id=mistake.name) for mistake in ALL])
def test_a_planted_mistake_is_caught(copy: Path, mistake: Mistake) -> None:
    """The test that is named for it fails: not for want of something to import, but in an assertion."""
    path = copy / mistake.path
    sound = path.read_text()
    assert sound.count(mistake.old) == 1, f"{mistake.path} no longer holds, once: {mistake.old}"

    path.write_text(sound.replace(mistake.old, mistake.new))
    try:
        ended = run_tests(copy, mistake.caught_by)
    finally:
        path.write_text(sound)

    assert ended.returncode != _PASSED, f"it survives {mistake.caught_by}"
    assert ended.returncode == _FAILED, f"it broke more than it should:\n{ended.stdout[-2000:]}"
    assert "\nFAILED " in ended.stdout, f"it broke more than it should:\n{ended.stdout[-2000:]}"
