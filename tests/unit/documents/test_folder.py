"""Statements into a directory that others may read from and write to, such as a share."""

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tollhouse_server.documents.document import Document
from tollhouse_server.documents.folder import FolderFailed, write_files

PLACE = ("acme", "monthly", "2026-05")


def document(content: bytes = b"42", name: str = "statement.csv") -> Document:
    """Build a document."""
    return Document(file_name=name, media_type="text/csv", content=content)


def written(folder: Path) -> dict[str, bytes]:
    """Return what is in the place of the schedule, by name."""
    return {path.name: path.read_bytes() for path in folder.joinpath(*PLACE).iterdir()}


def test_documents_are_whole_files_and_the_same_again(tmp_path: Path) -> None:
    """Nothing else is left beside them."""
    for _ in range(2):
        write_files(tmp_path, PLACE, [document(), document(b"43", "statement.pdf")])

    assert written(tmp_path) == {"statement.csv": b"42", "statement.pdf": b"43"}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_link_on_the_way_is_not_followed(tmp_path: Path, depth: int) -> None:
    """Who may write to the share must not choose where else the server writes."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "share"
    elsewhere.mkdir()
    folder.joinpath(*PLACE[: depth - 1]).mkdir(parents=True)
    folder.joinpath(*PLACE[:depth]).symlink_to(elsewhere)

    with pytest.raises(FolderFailed) as caught:
        write_files(folder, PLACE, [document()])

    assert list(elsewhere.iterdir()) == []
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("planted", ["statement.csv", ".statement.csv.part"])
def test_a_link_in_the_place_of_a_file_is_not_written_through(tmp_path: Path, planted: str) -> None:
    """Neither under the name of the document nor under one that a draft may have."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    place = tmp_path.joinpath(*PLACE)
    place.mkdir(parents=True)
    (place / planted).symlink_to(precious)

    write_files(tmp_path, PLACE, [document()])

    assert (precious.read_bytes(), written(tmp_path)["statement.csv"]) == (b"precious", b"42")


def test_readers_see_whole_files_while_two_write_the_same(tmp_path: Path) -> None:
    """As when the lease of a slow housekeeper has run out and another has taken its delivery up."""
    contents = [letter * 2_000_000 for letter in (b"a", b"b")]
    write_files(tmp_path, PLACE, [document(contents[0])])
    faults: list[OSError] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(15):
                write_files(tmp_path, PLACE, [document(content)])
        except OSError as error:
            faults.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(tmp_path.joinpath(*PLACE, "statement.csv").read_bytes())

    assert seen <= set(contents)
    assert faults == []


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write more, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there_and_no_half_of_a_draft(tmp_path: Path) -> None:
    """Each attempt would leave another one, on a disk that is full already."""
    write_files(tmp_path, PLACE, [document()])

    with _files_of_at_most(1000), pytest.raises(FolderFailed):
        write_files(tmp_path, PLACE, [document(b"x" * 100_000)])

    assert written(tmp_path) == {"statement.csv": b"42"}


def test_what_a_process_that_was_killed_has_left_is_cleared_away(tmp_path: Path) -> None:
    """After an hour nobody writes on it any more; the draft of somebody else who writes now stays."""
    place = tmp_path.joinpath(*PLACE)
    place.mkdir(parents=True)
    long_ago = time.time() - 7200
    for name, modified in ((".statement.csv.1a.part", long_ago), (".statement.csv.2b.part", time.time())):
        (place / name).write_bytes(b"half")
        os.utime(place / name, (modified, modified))

    write_files(tmp_path, PLACE, [document()])

    assert sorted(written(tmp_path)) == [".statement.csv.2b.part", "statement.csv"]


def test_a_directory_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """A share that is not mounted would be taken for delivered, on a disk that nobody looks at."""
    gone = tmp_path / "share"

    with pytest.raises(FolderFailed, match="the deployment's directory"):
        write_files(gone, PLACE, [document()])

    assert not gone.exists()


def test_what_is_written_is_there_after_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the directories that are made for it: each is kept in the one above, which is told to keep it."""
    kept: list[int] = []
    fsync = os.fsync

    def keeping(descriptor: int) -> None:
        fsync(descriptor)
        kept.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", keeping)
    place = tmp_path.joinpath(*PLACE)
    place.parent.mkdir(parents=True)

    write_files(tmp_path, PLACE, [document()])

    above = [tmp_path.joinpath(*PLACE[:depth]) for depth in range(3)]
    assert kept == [path.stat().st_ino for path in (*above, place / "statement.csv", place)]
