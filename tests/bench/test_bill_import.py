"""How long a large bill takes to come in, and how much memory: `pytest tests/bench/test_bill_import.py -s`."""

import json
import os
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tollhouse.admin.v1 import reconciliation_pb2 as pb
from tollhouse_admin.bill_files import Notation, read_pieces
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.services.reconciliation_service import ReconciliationService
from tollhouse_server.names import PLATFORM
from tollhouse_server.reconciliation.reader import BillFormat, read_piece

from tests.bench.costs import cost, postmaster_of
from tests.bench.recorder import Recorder
from tests.drivers.books import Books
from tests.drivers.google_bill import bill_line
from tests.integration.api.callers import PAGES, by

LINES = int(os.environ.get("TOLLHOUSE_BENCH_BILL_LINES", "100000"))
"""1,000,000 for the figures of the promise: some ten minutes."""

START = datetime(2026, 10, 1, 7, tzinfo=UTC)
_MORE_KIB_MOST = 150_000


def write_bill(path: Path) -> None:
    """Write a bill of so many lines: a month of hours, many projects, no line twice."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(LINES):
            row = bill_line(
                START + timedelta(hours=number % 700),
                f"p{number // 700}",
                "gemini-3.8-flash",
                "input_text",
                1_000 + number,
            )
            file.write(f"{json.dumps(row)}\n")


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    """A large file."""
    path = tmp_path / "bill.jsonl"
    write_bill(path)
    return path


async def test_a_large_bill_comes_in_with_bounded_memory(books: Books, bill: Path, recorder: Recorder) -> None:
    """Piece by piece through the service, as the command line sends it; then the month is compared."""
    service = ReconciliationService(books.database, Mutations(books.database, b"key"), PAGES)
    import_id, sent = str(uuid4()), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    postmaster = await postmaster_of(books.view.connection)
    with cost(postmaster) as reading:
        for piece in read_pieces(bill, Notation.JSONL):
            read_piece(piece.content, BillFormat.JSONL, first_line=piece.first_line)
    with cost(postmaster) as importing:
        pieces = read_pieces(bill, Notation.JSONL)
        waiting = next(pieces, None)
        while waiting is not None:
            following = next(pieces, None)
            answer = await service.import_bill(
                pb.ImportBillRequest(
                    import_id=import_id,
                    format=pb.BILL_FORMAT_JSONL,
                    content=waiting.content,
                    line_offset=sent,
                    last=following is None,
                ),
                by(domain=PLATFORM),
            )
            sent, waiting = sent + waiting.lines, following
    more_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with cost(postmaster) as comparing:
        await service.reconcile_bill(pb.ReconcileBillRequest(month="2026-10"), by(domain=PLATFORM))

    for name, spent in {"read": reading, "import": importing, "compare": comparing}.items():
        recorder.record_all(f"bill_import/{name}_{LINES}_lines", spent.figures(LINES, "lines"))
    recorder.record(f"bill_import/import_{LINES}_lines/more_mb", more_kib / 1024)
    assert (answer.line_count, answer.new_line_count) == (LINES, LINES)
    assert more_kib < _MORE_KIB_MOST
