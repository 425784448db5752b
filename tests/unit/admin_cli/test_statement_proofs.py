"""`report verify --receipts`: a month is recomputed from its receipts alone, without a server to ask."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tollhouse_server.chargeback.cells import Cell, Month, MonthBooks, SkuCell
from tollhouse_server.chargeback.composing import compose
from tollhouse_server.chargeback.statement import PeriodState
from tollhouse_server.documents.formats import format_of
from tollhouse_server.names import DepartmentName, TenantName
from tollhouse_server.reporting.detail_store import LabelCost
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.records import UsageRecord

from tests.drivers.cells import cell_of, days_of
from tests.drivers.receipts import KeyInMemory, as_line, document_of, receipts_of, record, write_keys
from tests.unit.admin_cli.conftest import Result, Run

NOVEMBER = Period(start=datetime(2026, 11, 1, tzinfo=UTC), end=datetime(2026, 12, 1, tzinfo=UTC))
VERIFY = ("report", "verify", "statement.json", "--receipts", "receipts.jsonl", "--receipt-keys", "keys.json")


@dataclass(slots=True)
class FiledMonth:
    """Three calls of a month as files: its statement, its receipts, and the public keys of these."""

    home: Path
    run: Run
    key: KeyInMemory

    def write_statement(self, records: Sequence[UsageRecord], *, department: str = "") -> None:
        """Write the statement that these records come to, as `report export` does."""
        cells = [_cell(one) for one in records]
        books = MonthBooks(
            tenant="acme",
            display_name="Acme",
            month=Month(name="2026-11", period=NOVEMBER, time_zone="UTC", is_fiscal=False),
            read_at=NOVEMBER.end,
            cells=cells,
            days=days_of(cells),
            skus=[one for record in records for one in _skus(record)],
            labels=[one for record in records for one in _labels(record)],
            entries=(),
            departments={},
        )
        scope = DepartmentName("acme", department) if department else TenantName("acme")
        document = format_of("json").document(compose(books, scope, PeriodState.OPEN))
        (self.home / "statement.json").write_bytes(document)

    def write_receipts(self, records: Sequence[UsageRecord]) -> list[str]:
        """Write the receipts of calls, signed together, and return their lines."""
        receipts = asyncio.run(receipts_of([document_of(one) for one in records], self.key))
        lines = [as_line(receipt) for receipt in receipts]
        self.write_lines(lines)
        write_keys(self.home / "keys.json", self.key)
        return lines

    def seal(self) -> None:
        """Seal the statement with a signature that nobody has made."""
        path = self.home / "statement.json"
        document = json.loads(path.read_text())
        text = json.dumps(document["statement"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        seal = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "key_version": 1, "signature": ""}
        path.write_text(json.dumps({**document, "seal": seal}, ensure_ascii=False))

    def write_lines(self, lines: Sequence[str]) -> None:
        """Write receipts as they are given."""
        (self.home / "receipts.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def wrong(self) -> dict[str, str]:
        """Verify, and return what is wrong with which detail; the exit code must agree."""
        ended: Result = self.run(*VERIFY, "-o", "json")
        checks = json.loads(ended.out)
        wrong = {one["check"]: one["detail"] for one in checks if one["verdict"] == "wrong"}
        assert ended.code == (1 if wrong else 0), ended.err
        return wrong


def _cell(one: UsageRecord) -> Cell:
    place = (one.settled_at.date(), tuple(one.department_path), one.project_id, one.tier, one.model)
    return cell_of(*place, 1, one.input_tokens, 0, one.output_tokens, 0, 0, one.cost_nanos, 0, 0)


def _skus(one: UsageRecord) -> list[SkuCell]:
    place = (tuple(one.department_path), one.project_id, one.tier, one.model)
    return [SkuCell(*place, line.sku, 1, line.quantity, line.cost_nanos) for line in one.lines]


def _labels(one: UsageRecord) -> list[LabelCost]:
    path = tuple(one.department_path)
    return [
        LabelCost(department_path=path, label=label, value=value, calls=1, cost_nanos=one.cost_nanos)
        for label, value in one.labels.items()
    ]


RECORDS = [record(1), record(2), replace(record(3), model="gemini-3.5-pro", department_path=("sales",))]


@pytest.fixture
def month(home: Path, run: Run) -> FiledMonth:
    """Three calls, their statement and their receipts, all genuine."""
    made = FiledMonth(home, run, KeyInMemory())
    made.write_statement(RECORDS)
    made.write_receipts(RECORDS)
    return made


def test_a_statement_is_recomputed_from_a_genuine_set_of_receipts(month: FiledMonth) -> None:
    """Every sum, by every dimension; with nothing but three files."""
    ended = month.run(*VERIFY)

    assert month.wrong() == {}
    assert "receipts genuine" in ended.out
    assert "lines from receipts" in ended.out


def test_receipts_of_other_departments_and_months_may_be_in_the_file(month: FiledMonth) -> None:
    """A department's statement is recomputed from its own among those of the whole tenant."""
    month.write_statement(RECORDS[:2], department="research")
    month.write_receipts([*RECORDS, replace(record(4), settled_at=NOVEMBER.end)])

    assert month.wrong() == {}


def test_a_missing_receipt_is_found_by_its_model_and_department(month: FiledMonth) -> None:
    """The cost that it carried is missing from each sum it belongs to."""
    month.write_receipts(RECORDS[:2])

    wrong = month.wrong()

    assert {"cost from receipts", "calls from receipts", "lines from receipts"} <= wrong.keys()
    assert wrong["cost by model from receipts"] == "another sum for gemini-3.5-pro and 0 more"


def _cheaper(line: str) -> str:
    return line.replace(f'\\"cost_nanos\\":{RECORDS[1].cost_nanos},', '\\"cost_nanos\\":1,')


def _of_another_project(line: str) -> str:
    return line.replace("projects/labels", "projects/others")


@pytest.mark.parametrize(
    ("tamper", "also"), [(_cheaper, "cost from receipts"), (_of_another_project, "cost by project from receipts")]
)
def test_a_tampered_receipt_is_named_and_its_sums_do_not_come_right(
    month: FiledMonth, tamper: Callable[[str], str], also: str
) -> None:
    """It is neither what was signed nor what the statement says."""
    first, second, third = month.write_receipts(RECORDS)
    month.write_lines([first, tamper(second), third])

    wrong = month.wrong()

    assert tamper(second) != second
    assert wrong["receipts genuine"].startswith(f"{RECORDS[1].attempt_id}: forged")
    assert also in wrong


def test_a_tampered_receipt_whose_sums_come_right_is_found_by_its_signature(month: FiledMonth) -> None:
    """Somebody writes a receipt of his own for a call that is missing: the sums agree, the signature does not."""
    own = month.write_receipts(RECORDS)
    month.write_lines([own[0], own[1], _signed_by_another(RECORDS[2])])

    assert list(month.wrong()) == ["receipts genuine"]


def _signed_by_another(one: UsageRecord) -> str:
    (receipt,) = asyncio.run(receipts_of([document_of(one)], KeyInMemory()))
    return as_line(receipt)


def test_a_foreign_receipt_is_named_and_not_counted(month: FiledMonth) -> None:
    """Another tenant's receipt is genuine; it pays for nothing in this statement, though a sum would come right."""
    month.write_receipts([*RECORDS[:2], replace(RECORDS[2], tenant_id="rival")])

    wrong = month.wrong()

    assert wrong["receipts of the tenant"] == f"{RECORDS[2].attempt_id} is of tenants/rival"
    assert "unknown key" in wrong["receipts genuine"]
    assert "cost from receipts" in wrong


def test_a_receipt_counts_once(month: FiledMonth) -> None:
    """A call's receipt in place of another's of the same cost adds up, and is found all the same."""
    month.write_receipts([RECORDS[0], RECORDS[0], RECORDS[2]])

    assert month.wrong() == {"receipts once each": f"{RECORDS[0].attempt_id} is there 2 times"}


def test_without_keys_it_is_said_what_was_not_looked_at(month: FiledMonth) -> None:
    """Sums alone are no proof, so nobody is left to think so."""
    ended = month.run(*VERIFY[:-2])

    assert ended.code == 0
    assert "receipts genuine" in ended.out
    assert "was not checked: that takes --receipt-keys" in ended.err
    assert "checks are right, 1 not made" in ended.err


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_signature_that_nobody_checked_is_not_called_right(month: FiledMonth, form: str) -> None:
    """Whoever can change a statement can change its digest, too."""
    month.seal()

    ended = month.run("report", "verify", "statement.json", "-o", form)

    assert (ended.code, "unchecked" in ended.out) == (0, True)
    assert "the signature was not checked: that takes --keys" in ended.err
    assert "checks are right, 1 not made" in ended.err


def test_a_file_of_something_else_is_refused(month: FiledMonth) -> None:
    """With what to write it with."""
    (month.home / "receipts.jsonl").write_text("attempt_id,cost\n")

    ended = month.run(*VERIFY[:-2])

    assert ended.code == 2
    assert "tollhouse receipts export" in ended.err
