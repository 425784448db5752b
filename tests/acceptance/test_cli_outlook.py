"""The command line looks ahead: forecast, replays, refused spend and return on investment, against the real server."""

import json
from pathlib import Path

from tests.drivers.command_line import CommandLine, Company


def nanos(money: dict[str, str]) -> int:
    """An amount as proto JSON writes it."""
    return int(money.get("units", 0)) * 10**9 + int(money.get("nanos", 0))


def test_a_month_is_replayed_against_limits_prices_and_routes(
    tollhouse: CommandLine, company: Company, tmp_path: Path
) -> None:
    """What would have been refused and what it would have cost; the ledger stays as it is."""
    for number in range(3):
        tollhouse.json("generate", f"Hello {number}", key=company.key)
    here = ("--tenant", company.tenant, "--month", "this")
    limits, routes = tmp_path / "limits.yaml", tmp_path / "routes.json"
    limits.write_text("limits:\n- {id: two, metric: requests, window: month, mode: strict, amount: 2}\n")
    routes.write_text(json.dumps({"tiers/flash": "gemini-2.5-flash-lite"}))

    limited = tollhouse.json("simulate", *here, "--limits", str(limits))
    routed = tollhouse.json("simulate", *here, "--routing", str(routes))
    repriced = tollhouse.json("simulate", *here, "--prices", "1")
    table = tollhouse.ok("simulate", *here, "--limits", str(limits))
    statement = tollhouse.json("report", "show", "--tenant", company.tenant)

    cost = nanos(statement["totals"]["cost"])
    assert (limited["records"], limited["refusedCalls"]) == ("3", "1")
    assert limited["limits"][0]["limit"]["name"].endswith("/limits/two")
    assert nanos(limited["simulated"]) < nanos(limited["booked"]) == cost
    assert routed["moves"][0]["calls"] == "3"
    assert nanos(routed["simulated"]) < nanos(routed["booked"]) == cost
    assert nanos(repriced["booked"]) == nanos(repriced["rerated"]) == cost
    assert "limits/two" in table
    assert tollhouse("simulate", *here).returncode != 0


def test_what_a_limit_refuses_and_what_work_costs_otherwise_stand_in_the_statement(
    tollhouse: CommandLine, company: Company
) -> None:
    """A refused call with its ceiling, and calls as units of work; a new company has no forecast, and is told so."""
    here = ("--tenant", company.tenant)
    stated = ("set", "tickets", "4", *here, "--unit", "ticket", "--from", "2026-01-01")
    tollhouse.json("generate", "Hello", key=company.key)
    tollhouse.ok("limits", "create", "none", *here, "--metric", "requests", "--window", "hour", "--amount", "0")

    refused = tollhouse("generate", "Hello", key=company.key)
    preview = tollhouse.json("returns", *stated, "--of-project", "chat", "--dry-run")
    tollhouse.ok("returns", *stated, "--of-project", "chat")
    (listed,) = tollhouse.json("returns", "list", *here)
    forecast = tollhouse.json("forecast", *here)

    assert "LIMIT_EXCEEDED" in refused.stderr
    assert preview["after"]["amount"]["units"] == listed["amount"]["units"] == "4"
    assert forecast["obstacle"] == "OBSTACLE_TOO_FEW_DAYS"
    # What was refused is written within a second or two, behind the call's back.
    for file in (f"statement-{number}.json" for number in range(50)):
        tollhouse.ok("report", "export", *here, "--file", file)
        statement = json.loads((tollhouse.directory / file).read_text())["statement"]
        if statement["refusals"]["calls"]:
            break
    (found,) = statement["returns"]
    assert statement["refusals"]["calls"] == 1
    assert statement["refusals"]["ceiling_nanos"] > 0
    assert (found["units"], found["alternative_nanos"]) == (1, 4 * 10**9)
    shown = tollhouse.json("report", "show", *here)
    assert (shown["refusals"]["calls"], shown["returns"][0]["unit"]) == ("1", "ticket (chat)")
