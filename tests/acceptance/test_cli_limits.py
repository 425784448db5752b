"""Limits of every kind, temporary increases and alerts with the command line, against the real server."""

import asyncio
import csv
import io
import json

import asyncpg
import pytest
from tollhouse_admin.__main__ import execute
from tollhouse_server.database.roles import AS_CONTROL

from tests.drivers.command_line import CommandLine, Company
from tests.drivers.stack import RunningStack


def person(company: Company, capsys: pytest.CaptureFixture[str], name: str, role: str) -> str:
    """Make a person with a role on the whole company and return a key: in this process, as the company was made."""
    here = ("--tenant", company.tenant)
    for command in (
        ("principals", "create", name, *here),
        ("roles", "grant", name, role, *here),
        ("keys", "create", "--principal", name, *here, "-o", "json"),
    ):
        capsys.readouterr()
        assert execute(command) == 0, capsys.readouterr().err
    return str(json.loads(capsys.readouterr().out)["secret"])


def test_a_refused_call_goes_through_once_a_second_person_approved_more(
    tollhouse: CommandLine, company: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for, not approved by who asked, approved by another, in force, revoked, refused again."""
    here = ("--tenant", company.tenant)
    asks = person(company, capsys, "head", "tenant-admin")
    approves = person(company, capsys, "board", "limit-approver")
    tollhouse.ok(*("limits", "create", "tiny", *here, "--metric", "cost", "--window", "total", "--amount", "$0.000001"))
    request = ("limits", "increases", "request", "tiny", *here, "--id", "fair", "--amount", "$5", "--expires", "7d")
    increases = ("limits", "increases")

    refused = tollhouse("generate", "Hello", key=company.key)
    tollhouse.ok(*request, "--reason", "the fair", key=asks)
    own = tollhouse(*increases, "approve", "fair", *here, key=asks)
    preview = tollhouse.json(*increases, "approve", "fair", *here, "--dry-run", key=approves)
    tollhouse.ok(*increases, "approve", "fair", *here, "--reason", "fine", key=approves)
    shown = tollhouse.json("limits", "show", "tiny", *here)
    allowed = tollhouse("generate", "Hello", key=company.key)
    listed = tollhouse.json(*increases, "list", *here, "--state", "approved", key=asks)
    tollhouse.ok(*increases, "revoke", "fair", *here, "--yes", key=approves)
    again = tollhouse("generate", "Hello", key=company.key)

    assert (refused.returncode, allowed.returncode, again.returncode) == (6, 0, 6), allowed.stderr
    assert own.returncode == 3
    assert own.stderr.startswith("error: SECOND_PERSON_NEEDED")
    assert "limit-approver" in own.stderr
    assert (preview["before"]["state"], preview["after"]["state"]) == ("STATE_REQUESTED", "STATE_APPROVED")
    assert shown["current"]["effectiveAmount"]["money"] == {"currencyCode": "USD", "units": "5", "nanos": 1000}
    assert [(one["requester"][-4:], one["decider"][-5:]) for one in listed] == [("head", "board")]


def test_a_limit_of_each_kind_is_made_changed_and_shown(tollhouse: CommandLine, company: Company) -> None:
    """With an overshoot, thresholds, a fiscal month, and calls in flight."""
    here = ("--tenant", company.tenant)
    create = ("limits", "create")
    tollhouse.ok("tenants", "update", company.tenant, "--fiscal-month-start-day", "26")
    elastic = ("--metric", "cost", "--window", "fiscal-month", "--mode", "elastic", "--amount", "$10")

    tollhouse.ok(*create, "month", *here, *elastic, "--overshoot", "$1", "--threshold", "50", "--threshold", "80")
    tollhouse.ok(*create, "flow", *here, "--metric", "concurrency", "--amount", "5")
    tollhouse.ok(*create, "rate", *here, "--metric", "requests", "--window", "rolling-10-minutes", "--amount", "1k")
    wrong = tollhouse(*create, *here, "--metric", "concurrency", "--amount", "5", "--threshold", "50")
    tollhouse.ok("limits", "update", "month", *here, "--mode", "strict", "--no-thresholds")
    rows = csv.DictReader(io.StringIO(tollhouse.ok("limits", "list", *here, "-o", "csv")))

    flow, month, rate = rows
    assert (wrong.returncode, "limit.thresholds" in wrong.stderr) == (5, True)
    assert (flow["metric"], flow["window"], flow["amount"]) == ("concurrency", "total", "5")
    assert (month["mode"], month["overshoot"], month["thresholds"]) == ("strict", "", "")
    assert month["current.reset_time"][8:10] in ("25", "26")
    assert (rate["window"], rate["amount"], rate["current.settled"]) == ("rolling-10-minutes", "1000", "0")


def test_alerts_and_limits_to_complete_come_from_the_server(
    running_stack: RunningStack, tollhouse: CommandLine, company: Company
) -> None:
    """The alert is as the ledger writes it."""
    here = ("--tenant", company.tenant)
    create = ("limits", "create", "monthly", *here, "--metric", "cost", "--window", "month", "--amount", "$2")
    tollhouse.ok(*create, "--threshold", "50")
    asyncio.run(raise_alert(str(running_stack.run["postgres"]), company.tenant))
    words = f"tollhouse limits alerts --tenant {company.tenant} mon"
    asked = {"_TOLLHOUSE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "5"}
    shell = CommandLine(environment={**tollhouse.environment, **asked}, directory=tollhouse.directory)

    (alert,) = json.loads(tollhouse.ok("limits", "alerts", "monthly", *here, "--since", "1h", "-o", "json"))
    table = tollhouse.ok("limits", "alerts", *here)

    assert (alert["kind"], alert["threshold"], alert["settled"]["money"]["units"]) == ("KIND_THRESHOLD", 50, "1")
    assert "$1.00" in table
    assert shell.ok().split() == ["monthly"]


async def raise_alert(dsn: str, tenant: str) -> None:
    """Write the alert of half of a limit, as the ledger does."""
    connection = await asyncpg.connect(dsn, server_settings=dict(AS_CONTROL))
    try:
        await connection.execute(
            "INSERT INTO limit_alert (tenant_id, limit_id, window_start, kind, threshold, settled, amount) "
            "SELECT tenant_id, limit_id, date_trunc('month', now()), 'THRESHOLD', 50, 1000000000, amount "
            "FROM usage_limit WHERE tenant_id = $1",
            tenant,
        )
    finally:
        await connection.close()
