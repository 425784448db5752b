"""The files of a downloaded month."""

import gzip
import json
from pathlib import Path

import pytest
from tollhouse_admin.export_files import Manifest, MonthFile, Tally, check_file, read_manifest
from tollhouse_admin.failures import Failure


def lines(*costs: int) -> list[str]:
    return [json.dumps({"cost_nanos": cost, "model": "gemini – ü"}, ensure_ascii=False) for cost in costs]


def downloaded(directory: Path) -> Manifest:
    file = MonthFile(directory, "2026-05")
    progress = file.append(file.resume(), lines(1, 2), "token")
    progress = file.append(progress, lines(-3), "")
    return file.finish(progress, "usageExports/2026-05")


def test_a_download_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    """What was written without being noted is cut off; what was noted is not read again."""
    first = MonthFile(tmp_path, "2026-05")
    first.append(first.resume(), lines(1, 2), "after two")
    with (tmp_path / "usage-2026-05.jsonl.gz.part").open("ab") as partial:
        partial.write(b"half a piece")

    file = MonthFile(tmp_path, "2026-05")
    progress = file.resume()
    manifest = file.finish(file.append(progress, lines(3), ""), "usageExports/2026-05")

    assert (progress.page_token, progress.tally.records) == ("after two", 2)
    assert gzip.decompress(file.path.read_bytes()).decode().splitlines() == lines(1, 2, 3)
    assert (manifest.records, manifest.cost_nanos) == (3, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["usage-2026-05.jsonl.gz", "usage-2026-05.manifest.json"]


def test_a_manifest_says_what_the_file_holds(tmp_path: Path) -> None:
    """It is read back as it was written, and the file is what it says."""
    manifest = downloaded(tmp_path)

    assert read_manifest(tmp_path / "usage-2026-05.manifest.json") == manifest
    assert manifest.tally == Tally().plus(lines(-3, 2, 1))
    check_file(manifest, tmp_path / manifest.file)


@pytest.mark.parametrize("change", [lambda content: content[:-4], lambda content: content + content, lambda _: b"no"])
def test_a_file_that_changed_is_not_what_its_manifest_says(tmp_path: Path, change: object) -> None:
    """Cut, doubled, or something else altogether."""
    assert callable(change)
    manifest = downloaded(tmp_path)
    path = tmp_path / manifest.file
    path.write_bytes(change(path.read_bytes()))

    with pytest.raises(Failure, match="not the file"):
        check_file(manifest, path)


def test_a_month_that_is_there_is_not_downloaded_over(tmp_path: Path) -> None:
    """The file may be the only copy."""
    downloaded(tmp_path)

    with pytest.raises(Failure, match="already"):
        MonthFile(tmp_path, "2026-05").resume()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """One line, no traceback."""
    (tmp_path / "file").write_text("")

    with pytest.raises(Failure, match="file"):
        MonthFile(tmp_path / "file", "2026-05").resume()
