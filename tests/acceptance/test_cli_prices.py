"""Prices with the command line, against the real server: drafted, refused, approved by another, looked up, rerated."""

import json
from datetime import UTC, datetime

import pytest
from tollhouse_admin.__main__ import execute

from tests.drivers.command_line import CommandLine, Company

MODEL = "gemini-2.5-flash-lite-preview"
LIST = """
[[prices]]
model = "{model}"
effective_from = 2025-01-01
source = "a contract"
input = "{dollars}"
output = "{dollars}"
"""


def keeper(capsys: pytest.CaptureFixture[str], name: str) -> str:
    """Make somebody who keeps prices on the platform and return a key."""
    here = ("--tenant", "platform")
    for command in (
        ("principals", "create", name, *here),
        ("roles", "grant", name, "price-keeper", "--scope", "platform", *here),
        ("keys", "create", "--principal", name, *here, "-o", "json"),
    ):
        capsys.readouterr()
        assert execute(command) == 0, capsys.readouterr().err
    return str(json.loads(capsys.readouterr().out)["secret"])


def test_prices_are_drafted_from_genai_prices_and_tried(tollhouse: CommandLine) -> None:
    """A file to look at, the same as a dry run of its import; the book in force stays."""
    before = tollhouse.json("prices", "show")

    draft = tollhouse("prices", "draft")
    (tollhouse.directory / "draft.toml").write_text(draft.stdout)
    from_file = tollhouse.json("prices", "import", "draft.toml", "--dry-run")
    from_source = tollhouse.json("prices", "import", "--from", "genai-prices", "--dry-run")

    assert "effective_from = 2026-12-01T00:00:00-08:00" in draft.stdout
    assert "kept: gemini-2.5-pro cache_storage: the source has no price of it" in draft.stderr
    assert from_file["changes"] == from_source["changes"] != []
    assert tollhouse.json("prices", "show") == before


def test_a_proposal_is_approved_by_another_and_the_past_stays_known(
    tollhouse: CommandLine, company: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused at twenty times; proposed with a reason; not approved by its proposer; in force by another's word."""
    ann, ben = keeper(capsys, "price-ann"), keeper(capsys, "price-ben")
    for name, dollars in (("first", "1"), ("second", "20")):
        (tollhouse.directory / f"{name}.toml").write_text(LIST.format(model=MODEL, dollars=dollars))
    tollhouse.ok("prices", "import", "first.toml")
    known = datetime.now(UTC).isoformat()

    refused = tollhouse("prices", "import", "second.toml")
    allowed = ("--allow-jumps", "--reason", "the new contract", "-o", "json")
    proposal = json.loads(tollhouse.ok("prices", "propose", "second.toml", *allowed, key=ann))["name"]
    own = tollhouse("prices", "approve", proposal, key=ann)
    tollhouse.ok("prices", "approve", proposal, "--reason", "seen", key=ben)

    assert refused.returncode == 5
    assert refused.stderr.startswith("error: PRICES_IMPLAUSIBLE")
    assert "prices[0].output_text" in refused.stderr
    assert own.stderr.startswith("error: SECOND_PERSON_NEEDED")
    was = tollhouse.json("prices", "list", "--model", MODEL, "--at", "now", "--known-at", known)
    now = tollhouse.json("prices", "list", "--model", MODEL, "--at", "now")
    assert {one["amount"]["units"] for one in was} == {"1"}
    assert {one["amount"]["units"] for one in now} == {"20"}
    (old, new) = tollhouse.json("prices", "history", MODEL, "--sku", "thoughts")
    assert old["untilVersion"] == new["version"]
    assert tollhouse.json("prices", "show")["approver"] == "tenants/platform/principals/price-ben"
    assert tollhouse.json("prices", "proposals", "--state", "approved")[0]["name"] == proposal


def test_a_month_is_rerated_and_stays_as_it_was(tollhouse: CommandLine, company: Company) -> None:
    """This month's one call, had it been a batch."""
    here, month = ("--tenant", company.tenant), ("--month", f"{datetime.now(UTC):%Y-%m}")
    assert tollhouse("generate", "Hello", "--model", "gemini-2.5-flash", key=company.key).returncode == 0
    before = tollhouse.json("report", "month", *here, *month)["totals"]

    report = tollhouse.json("prices", "rerate", *here, *month, "--tier", "batch")

    nanos = {side: int(report[side].get("units", 0)) * 10**9 + report[side]["nanos"] for side in ("booked", "rerated")}
    assert report["booked"] == before["cost"]
    assert nanos["booked"] == 2 * nanos["rerated"] > 0
    assert {line["serviceTier"] for line in report["lines"]} == {"batch"}
    assert tollhouse.json("report", "month", *here, *month)["totals"] == before
