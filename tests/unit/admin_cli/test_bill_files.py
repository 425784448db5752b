"""Files of Google's bill that are broken, cut off or made to do harm."""

import gzip
import tracemalloc
from pathlib import Path

import pytest
from tollhouse_admin.bill_files import Notation, read_pieces
from tollhouse_admin.failures import Failure

LINE = b'{"sku": "a"}\n'
PACKED = gzip.compress(LINE * 10_000)


@pytest.mark.parametrize(
    "content",
    [PACKED[:-20], PACKED[: len(PACKED) // 2], PACKED[:15] + bytes(40) + PACKED[55:], b"no gzip", b""],
    ids=["cut-off", "half", "damaged", "none", "empty"],
)
def test_a_packed_file_that_is_broken_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    """By its name, as one sentence, and not half of it is taken for all."""
    path = tmp_path / "bill.jsonl.gz"
    path.write_bytes(content)

    if not content:
        assert list(read_pieces(path, Notation.JSONL)) == []
        return
    with pytest.raises(Failure, match=r"bill\.jsonl\.gz cannot be read"):
        list(read_pieces(path, Notation.JSONL))


@pytest.mark.parametrize("notation", [Notation.JSONL, Notation.CSV])
def test_a_small_file_that_unpacks_to_one_endless_line_is_refused_early(tmp_path: Path, notation: Notation) -> None:
    """A hundred megabytes in a hundred kilobytes: what is looked at is no longer than a line can be."""
    path = tmp_path / "bill.gz"
    path.write_bytes(gzip.compress(b"x" * 100_000_000, compresslevel=1))
    tracemalloc.start()

    with pytest.raises(Failure, match="line 1 is longer than"):
        list(read_pieces(path, notation))

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 60_000_000
