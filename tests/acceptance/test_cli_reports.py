"""The command line on the real server's books: catalogue, a caller's own usage, the month of a department."""

import csv
import io
from decimal import Decimal
from uuid import uuid4

import pytest

from tests.drivers.command_line import CommandLine, Company


def test_the_month_report_is_the_sum_of_the_calls(tollhouse: CommandLine, company: Company) -> None:
    """To the nano-dollar, from the answers that the callers saw."""
    seen = [tollhouse.json("generate", f"Hello {n}", key=company.key)["outcome"]["cost"] for n in range(2)]
    seen.append(tollhouse.json("embed", "one", "two", key=company.key)["outcome"]["cost"])
    spent = sum((Decimal(cost.get("units", "0")) + Decimal(cost["nanos"]).scaleb(-9) for cost in seen), Decimal(0))

    report = ["report", "month", "--tenant", company.tenant, "--department", "research"]
    rows = list(csv.DictReader(io.StringIO(tollhouse.ok(*report, "-g", "model", "-g", "sku", "-o", "csv"))))
    table = tollhouse(*report)

    assert sum(Decimal(row["cost"]) for row in rows) == spent
    assert {row["model"] for row in rows} == {"gemini-3.8-flash", "gemini-embedding-2"}
    assert f"total ${spent.normalize():f} in 3 records" in table.stderr


def test_a_caller_sees_its_usage_its_limits_and_its_receipt(tollhouse: CommandLine, company: Company) -> None:
    """And nothing of anybody else's."""
    create = ["limits", "create", "monthly", "--tenant", company.tenant, "--metric", "cost", "--window", "month"]
    tollhouse.ok(*create, "--amount", "10")
    request_id = str(uuid4())
    answer = tollhouse.json("generate", "Hello", "--request-id", request_id, "--label", "team=search", key=company.key)
    cost = answer["outcome"]["cost"]

    summary = tollhouse.json("usage", key=company.key)
    (limit,) = tollhouse.json("usage", "limits", key=company.key)
    (record,) = tollhouse.json("usage", "records", key=company.key)
    receipt = tollhouse.json("usage", "receipt", request_id, key=company.key)
    bars = tollhouse.ok("usage", "limits", key=company.key)
    foreign = tollhouse("usage", "--tenant", "demo", key=company.key)

    assert summary["total"]["cost"] == cost
    assert limit["settled"] == str(cost["nanos"])
    assert (record["requestId"], record["labels"]) == (request_id, {"team": "search"})
    assert receipt["cost"] == cost
    assert receipt["attemptId"] == answer["outcome"]["receipt"]["attemptId"]
    assert "[....................] 0%" in bars
    assert foreign.returncode == 3


def test_a_call_is_sent_once_for_its_request_id(tollhouse: CommandLine, company: Company) -> None:
    """A repetition is not charged again."""
    request_id = str(uuid4())
    call = ["generate", "Hello", "--request-id", request_id]

    tollhouse.ok(*call, key=company.key)
    again = tollhouse(*call, key=company.key)
    other = tollhouse("generate", "Bye", "--request-id", request_id, key=company.key)

    assert again.returncode == 5
    assert again.stderr.startswith("error: DUPLICATE_REQUEST")
    assert other.stderr.startswith("error: REQUEST_ID_REUSED")
    assert len(tollhouse.json("usage", "records", key=company.key)) == 1


def test_the_catalogue_shows_tiers_models_and_prices(tollhouse: CommandLine, company: Company) -> None:
    """As the price book has them."""
    tiers = tollhouse.json("models", "tiers", key=company.key)
    models = list(csv.DictReader(io.StringIO(tollhouse.ok("models", "list", "-o", "csv", key=company.key))))
    shown = tollhouse.ok("models", "show", "gemini-3.8-flash", key=company.key)

    assert {"tiers/flash", "tiers/pro", "tiers/embedding"} <= {tier["name"] for tier in tiers}
    (flash,) = [model for model in models if model["name"] == "models/gemini-3.8-flash"]
    assert flash["input_per_million"].startswith("$")
    assert "input_text" in shown


@pytest.mark.parametrize("arguments", [["report", "month"], ["report", "records"]])
def test_reports_are_not_for_callers(tollhouse: CommandLine, company: Company, arguments: list[str]) -> None:
    """A service sees its own usage only."""
    refused = tollhouse(*arguments, "--tenant", company.tenant, key=company.key)

    assert refused.returncode == 3
    assert refused.stderr.startswith("error: PERMISSION_DENIED")
