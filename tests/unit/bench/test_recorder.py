"""Figures of benchmarks are kept as programs and people read them."""

import json
from pathlib import Path
from typing import Any

from tests.bench.recorder import Recorder, tables

HERE = {"commit": "a1", "machine": {"cores": 2}}


def saved(directory: Path, facts: dict[str, Any], **rounds: float) -> dict[str, Any]:
    """Record one round of some figures of a suite, save, and return what stands in the file."""
    recorder = Recorder(directory, facts)
    recorder.record_all("suite/row", rounds)
    recorder.save()
    found: dict[str, Any] = json.loads((directory / "bench.json").read_text())
    return found


def test_a_figure_has_the_median_and_the_extremes_of_its_rounds(tmp_path: Path) -> None:
    """One slow round does not move the median."""
    recorder = Recorder(tmp_path, HERE)

    recorder.record("suite/row/cpu_us", 10, 12, 500)
    recorder.save()

    figure = json.loads((tmp_path / "bench.json").read_text())["figures"]["suite/row/cpu_us"]
    assert figure == {"median": 12, "min": 10, "max": 500, "rounds": 3}


def test_suites_can_be_run_one_by_one(tmp_path: Path) -> None:
    """Figures of the same commit and machine stay; those of another commit are dropped."""
    saved(tmp_path, HERE, first=1)

    same = saved(tmp_path, HERE, second=2)
    other = saved(tmp_path, {**HERE, "commit": "b2"}, third=3)

    assert list(same["figures"]) == ["suite/row/first", "suite/row/second"]
    assert list(other["figures"]) == ["suite/row/third"]


def test_what_was_skipped_is_told_until_it_is_measured(tmp_path: Path) -> None:
    """A peer that was installed later is no longer missing."""
    recorder = Recorder(tmp_path, HERE)
    recorder.skip("suite/row", "not installed")
    recorder.skip("suite/other", "not installed")
    recorder.save()

    found = saved(tmp_path, HERE, first=1)

    assert found["skipped"] == {"suite/other": "not installed"}


def test_a_suite_is_a_table_of_its_rows_and_figures() -> None:
    """The first part of a key is the title, the last one the column; a figure that a row has not is empty."""
    one = {"median": 1234.5, "min": 1000.0, "max": 2000.0, "rounds": 3}
    two = {"median": 0.5, "min": 0.5, "max": 0.5, "rounds": 1}

    (table,) = tables({"s/a/c1/us": one, "s/b/us": two, "s/b/ms": two})

    assert table.splitlines() == [
        "## s",
        "",
        "| | us | ms |",
        "|---|---|---|",
        "| a/c1 | 1,234 (1,000–2,000) |  |",
        "| b | 0.50 | 0.50 |",
    ]
