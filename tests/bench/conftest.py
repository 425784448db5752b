"""What benches share: the Recorder, and the end of a run, where its tables are printed."""

from collections.abc import Iterator

import pytest

from tests.bench.recorder import DIRECTORY, Recorder

_RECORDER = pytest.StashKey[Recorder]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing."""
    config.stash[_RECORDER] = Recorder()


@pytest.fixture
def recorder(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """Where figures go; they are written after each bench, so that a run that is broken off leaves what it has."""
    recorder = request.config.stash[_RECORDER]
    yield recorder
    recorder.save()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables of this run and where they are."""
    if config.stash[_RECORDER].found:
        terminalreporter.write_line((DIRECTORY / "bench.md").read_text())
        terminalreporter.write_line(f"written to {DIRECTORY / 'bench.md'} and bench.json")
