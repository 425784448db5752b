"""Google's bill on the command line, as finance does it: import, compare, look, accept."""

import gzip
import json
import random
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.drivers.command_line import CommandLine
from tests.drivers.google_bill import (
    PACIFIC,
    Row,
    as_csv,
    as_jsonl,
    changed,
    cost_nanos,
    google_bill,
    some_calls,
    statements,
    with_other_price,
)
from tests.drivers.stack import RunningStack

TENANTS = ("bill-one", "bill-two")
CALLS = some_calls(
    random.Random(8),
    24,
    start=datetime(2025, 2, 10, tzinfo=PACIFIC),
    days=2,
    accounts=("bill-alpha",),
    tenants=TENANTS,
)
BILL = google_bill(CALLS)
DEAR = next(place for place, row in enumerate(BILL) if "output" in row["sku"]["description"])


@pytest.fixture(scope="module")
def planted(running_stack: RunningStack) -> list[Row]:
    """A bill of what is in the ledger, with one line at ten times its price."""
    running_stack.query("SELECT create_usage_partition('2025-02-01')")
    for sql, values in statements(CALLS):
        running_stack.query(sql, *values)
    return [*BILL[:DEAR], with_other_price(BILL[DEAR], 10), *BILL[DEAR + 1 :]]


def nanos(money: dict[str, Any]) -> int:
    """Return money of a JSON answer as nano-dollars."""
    return int(money.get("units", 0)) * 10**9 + int(money.get("nanos", 0))


def test_a_dear_line_of_a_bill_is_found_accepted_and_charged(
    tollhouse: CommandLine, planted: list[Row], tmp_path: Path
) -> None:
    """The same bill in three notations is one bill; what it says too much is charged to the nano-dollar."""
    (tmp_path / "bill.jsonl.gz").write_bytes(gzip.compress(as_jsonl(planted).encode()))
    (tmp_path / "bill.csv").write_text(as_csv(planted), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(planted), tmp_path / "bill.parquet")

    tried = tollhouse("reconcile", "import", str(tmp_path / "bill.jsonl.gz"), "--dry-run")
    first = tollhouse.json("reconcile", "import", str(tmp_path / "bill.jsonl.gz"))
    again = [tollhouse.json("reconcile", "import", str(tmp_path / f"bill.{kind}")) for kind in ("csv", "parquet")]
    result = tollhouse.json("reconcile", "run", "2025-02")
    (found,) = tollhouse.json("reconcile", "variances", "2025-02", "--blocking")
    accepting = ["reconcile", "accept", found["name"], "--reason", "agreed with Google"]
    previewed = tollhouse(*accepting, "--dry-run")
    accepted = tollhouse.json(*accepting, "--yes")

    too_much = 9 * cost_nanos(BILL[DEAR])
    assert f"{len(planted)} lines would be accepted" in tried.stderr
    assert (first["lineCount"], first["newLineCount"]) == (f"{len(planted)}", f"{len(planted)}")
    assert [(one["lineCount"], one["newLineCount"]) for one in again] == [(f"{len(planted)}", "0")] * 2
    assert (result["blockingCount"], nanos(result["unexplained"])) == ("1", too_much)
    assert [one["reason"] for one in found["findings"]] == ["REASON_PRICE_MISMATCH"]
    assert (previewed.returncode, "would be accepted" in previewed.stderr) == (0, True)
    assert {one["tenant"] for one in accepted["trueUps"]} <= {f"tenants/{tenant}" for tenant in TENANTS}
    assert sum(nanos(one["amount"]) for one in accepted["trueUps"]) == too_much
    assert tollhouse.json("reconcile", "show", "2025-02")["blockingCount"] == "0"
    assert tollhouse.json("reconcile", "variances", "2025-02", "--blocking") == []


def test_googles_own_counts_are_held_against_the_attempts(
    tollhouse: CommandLine, planted: list[Row], tmp_path: Path
) -> None:
    """As CSV and as JSON lines; a request that went past Tollhouse is named, and a column that is missing."""
    assert planted
    counts = Counter((f"{call.at.astimezone(PACIFIC):%Y-%m-%d}", call.model) for call in CALLS)
    rows: list[dict[str, Any]] = [
        {"day": day, "project_id": "google-bill-alpha", "model_user_id": model, "request_count": f"{count}.0"}
        for (day, model), count in sorted(counts.items())
    ]
    (tmp_path / "same.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rows[0]["request_count"] = counts[rows[0]["day"], rows[0]["model_user_id"]] + 1
    (tmp_path / "more.csv").write_text(
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])
    )
    (tmp_path / "bad.csv").write_text("day,project,requests\n2025-02-10,p,1\n")

    same = tollhouse("reconcile", "metrics", str(tmp_path / "same.jsonl"), "-o", "json")
    (found,) = tollhouse.json("reconcile", "metrics", str(tmp_path / "more.csv"))
    bad = tollhouse("reconcile", "metrics", str(tmp_path / "bad.csv"))

    assert (same.stdout.strip(), f"{len(CALLS)} attempts" in same.stderr) == ("[]", True)
    assert (found["reason"], int(found["counted"]["requests"]) - int(found["attempts"])) == (
        "REASON_MORE_IN_METRICS",
        1,
    )
    assert (bad.returncode, "there is no model" in bad.stderr) == (2, True)


def test_a_bad_line_is_named_with_its_number_and_field_and_nothing_is_imported(
    tollhouse: CommandLine, tmp_path: Path
) -> None:
    """The third line of a file with a header is the second line of use."""
    rows = [BILL[0], changed(BILL[1], cost="a lot")]
    (tmp_path / "bad.csv").write_text(as_csv(rows), encoding="utf-8")
    before = tollhouse.json("reconcile", "imports")

    refused = tollhouse("reconcile", "import", str(tmp_path / "bad.csv"))

    assert refused.returncode != 0
    assert "line 3: cost" in refused.stderr
    assert tollhouse.json("reconcile", "imports") == before


def test_bounds_and_rules_are_changed_and_a_bad_rule_is_refused(tollhouse: CommandLine, tmp_path: Path) -> None:
    """Both have one version for the platform."""
    (tmp_path / "map.toml").write_text('[[rule]]\nid = "F00D"\nmodel = "gemini-3.8-flash"\nsku = "input_text"\n')
    (tmp_path / "bad.toml").write_text('[[rule]]\nid = "F00D"\npattern = "("\n')
    policy = tollhouse.json("reconcile", "policy")

    changed_policy = tollhouse.json("reconcile", "set-policy", "--percent", "0.75")
    tollhouse.ok("reconcile", "set-policy", "--percent", policy["percent"])
    imported = tollhouse.json("reconcile", "import-map", str(tmp_path / "map.toml"))
    refused = tollhouse("reconcile", "import-map", str(tmp_path / "bad.toml"))

    assert (policy["percent"], changed_policy["percent"]) == ("0.5", "0.75")
    assert (imported["ruleCount"], "F00D" in tollhouse.ok("reconcile", "map")) == (1, True)
    assert "rule[0]" in refused.stderr
    assert json.loads(tollhouse.ok("reconcile", "policy", "-o", "json"))["percent"] == "0.5"
