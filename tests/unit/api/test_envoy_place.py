"""The directory that a process writes in for the Envoy that it becomes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tollhouse_server.api.transports.envoy_place import make_place

# It becomes another program, as it does in earnest.
_MAKE_ONE = """
import os, sys
from tollhouse_server.api.transports.envoy_place import make_place
place = make_place()
(place / "key").touch()
os.write(1, f"{place}\\n".encode())
os.execv("/bin/cat", ["cat"])
"""


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Start processes that have one, and are then other programs."""
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    with ExitStack() as stack:

        def start() -> tuple[subprocess.Popen[str], Path]:
            process = subprocess.Popen(
                [sys.executable, "-c", _MAKE_ONE],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            return process, Path(process.stdout.readline().strip())

        yield start


def test_what_a_killed_process_has_left_is_removed_by_the_next(
    begin: Callable[[], tuple[subprocess.Popen[str], Path]],
) -> None:
    """It holds a private key; that of a process that lives stays."""
    living, place_of_living = begin()
    killed, place_of_killed = begin()
    assert living.poll() is None and place_of_killed.is_dir()
    killed.kill()
    killed.wait()

    _, newest = begin()

    assert not place_of_killed.exists()
    assert sorted(newest.parent.iterdir()) == sorted([place_of_living, newest])
    assert (place_of_living / "key").exists()


def test_what_is_not_ours_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes a server remove what a link points to."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (tmp_path / "tollhouse-envoy-link").symlink_to(elsewhere)
    (tmp_path / "tollhouse-envoy-file").touch()

    place = make_place()

    assert place.stat().st_mode & 0o777 == 0o700
    assert (elsewhere / "precious").exists() and (tmp_path / "tollhouse-envoy-file").exists()
