"""The command line on statements: what a month is, what stands against closing it, and what is corrected."""

import json
from decimal import Decimal
from pathlib import Path

from tests.drivers.command_line import CommandLine, Company


def test_a_statement_is_shown_exported_and_checked_without_the_server(
    tollhouse: CommandLine, company: Company, tmp_path: Path
) -> None:
    """The same sums on the screen, in the file, and in those of the records and receipts."""
    for number in range(2):
        tollhouse.json("generate", f"Hello {number}", "--label", "team=search", key=company.key)
    place = ["--tenant", company.tenant]

    shown = tollhouse.json("report", "show", *place)
    files = {name: tmp_path / name for name in ("statement.json", "records.csv", "keys.json")}
    tollhouse.ok("report", "export", *place, "--file", str(files["statement.json"]))
    tollhouse.ok("report", "export", *place, "--records", "--file", str(files["records.csv"]))
    checked = tollhouse.ok("report", "verify", *map(str, (files["statement.json"], "--records", files["records.csv"])))
    sheet = tollhouse.ok("report", "export", *place, "--format", "csv", "--file", "-")

    statement = json.loads(files["statement.json"].read_text())["statement"]
    assert statement["totals"]["cost_nanos"] == _nanos(shown["totals"]["cost"])
    assert [part["key"] for part in shown["labels"]] == ["team=search"]
    assert "wrong" not in checked
    assert f",{statement['totals']['cost_nanos']}," in sheet.splitlines()[-1]


def _nanos(money: dict[str, str]) -> int:
    return int(Decimal(money.get("units", "0")) * 10**9 + Decimal(money.get("nanos", 0)))


def test_the_current_month_is_corrected_and_not_closed(tollhouse: CommandLine, company: Company) -> None:
    """A dry run changes nothing; a month that runs cannot be previewed, and says what stands against its close."""
    adjust = ["report", "adjust", "--tenant", company.tenant, "--department", "research", "--credit", "2.50"]
    tollhouse.ok(*adjust, "--reason", "outage", "--dry-run")

    entered = tollhouse.json(*adjust, "--reason", "outage")
    listed = tollhouse.json("report", "adjustments", "--tenant", company.tenant)
    (month, *_) = tollhouse.json("report", "periods", "--tenant", company.tenant)
    name = month["name"].rpartition("/")[2]
    shown = tollhouse.json("report", "show", "--tenant", company.tenant)
    tried = tollhouse("report", "close", name, "--tenant", company.tenant, "--dry-run", "-o", "json")
    refused = tollhouse("report", "preview", name, "--tenant", company.tenant)

    assert listed == [entered]
    assert (entered["amount"]["units"], entered["amount"]["nanos"]) == ("-2", -500_000_000)
    assert [entry["reason"] for entry in shown["entries"]] == ["outage"]
    obstacles = json.loads(tried.stdout)["period"]["obstacles"]
    assert {one["kind"] for one in obstacles} == {"KIND_NOT_PREVIEWED", "KIND_NOT_OVER"}
    assert tried.returncode == refused.returncode
    assert tried.stderr.startswith("error: PERIOD_OBSTRUCTED")
    assert refused.stderr.startswith("error: PERIOD_OBSTRUCTED")
