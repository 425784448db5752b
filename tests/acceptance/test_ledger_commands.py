"""Suspense resolved and the ledger verified by command, on the real server."""

import asyncio
from decimal import Decimal
from typing import Any

from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.command_line import CommandLine, Company
from tests.drivers.stack import RunningStack

RESOLVE = ("ledger", "suspense", "resolve", "--reason", "Google's usage export")


def break_calls(stack: RunningStack, count: int) -> None:
    """Let the next calls break after they were sent."""

    async def add() -> None:
        async with SimulatorClient(stack.simulator) as simulator:
            await simulator.add_fault("reset", count=count)

    asyncio.run(add())


def dollars(money: dict[str, Any]) -> Decimal:
    """Return Money in its JSON as dollars."""
    return Decimal(money.get("units", "0")) + Decimal(money.get("nanos", 0)).scaleb(-9)


def test_suspense_is_resolved_and_the_ledger_adds_up(
    tollhouse: CommandLine, company: Company, running_stack: RunningStack
) -> None:
    """Listed, tried, resolved one by one and all at once, and the month tells the new cost."""
    at = ("--tenant", company.tenant)
    tollhouse.ok("limits", "create", "monthly", *at, "--metric", "cost", "--window", "month", "--amount", "10")
    tollhouse.ok("routes", "policy", "set", *at, "--no-resend")
    tollhouse.ok("generate", "Hello", key=company.key)
    served = dollars(tollhouse.json("report", "month", *at)["totals"]["cost"])
    break_calls(running_stack, 4)
    broken = [tollhouse("generate", "Hello", key=company.key) for _ in range(4)]
    assert {one.returncode for one in broken} != {0}
    # Until a worker has heard of the policy, a call that breaks is sent again, and served.
    served *= 1 + sum(one.returncode == 0 for one in broken)

    entries = tollhouse.json("ledger", "suspense", "list", *at)
    names = [entry["name"].rsplit("/", 1)[1] for entry in entries]
    as_is = tollhouse("ledger", "verify", *at)
    tried = tollhouse.ok(*RESOLVE, names[0], *at, "--as", "actual", "--cost", "0.000000007", "--dry-run")
    unchanged = tollhouse.json("ledger", "suspense", "list", *at)
    tollhouse.ok(*RESOLVE, names[0], *at, "--as", "actual", "--cost", "0.000000007", "--yes")
    rest = tollhouse(*RESOLVE, "--all", *at, "--cause", "broken", "--as", "void", "--yes")
    late = tollhouse(*RESOLVE, names[0], *at, "--as", "void", "--yes")
    verified = tollhouse("ledger", "verify", *at)
    report = tollhouse.json("report", "month", *at)

    assert len(entries) == 4
    assert as_is.returncode == 0, as_is.stderr
    assert "outcome.cost" in tried
    assert len(unchanged) == 4
    assert "3 resolved" in rest.stderr
    assert (late.returncode, late.stderr.split(":")[1].strip()) == (5, "WRONG_STATE")
    assert tollhouse.json("ledger", "suspense", "list", *at) == []
    assert verified.returncode == 0, verified.stderr
    assert "the ledger adds up" in verified.stderr
    assert dollars(report["totals"]["cost"]) == served + Decimal("0.000000007")


def test_the_whole_platform_is_verified_by_its_administrator_alone(
    tollhouse: CommandLine, company: Company, running_stack: RunningStack
) -> None:
    """A caller may not even verify his own tenant."""
    whole = tollhouse.json("ledger", "verify")
    refused = tollhouse("ledger", "verify", "--tenant", company.tenant, key=company.key)

    assert whole["findings"] == []
    assert int(whole["summary"]["tenantCount"]) >= 3
    assert refused.returncode == 3


def test_a_changed_counter_is_found(tollhouse: CommandLine, company: Company, running_stack: RunningStack) -> None:
    """By one nano-dollar, with an exit code that a script sees."""
    at = ("--tenant", company.tenant)
    tollhouse.ok("limits", "create", "monthly", *at, "--metric", "cost", "--window", "month", "--amount", "10")
    tollhouse.ok("generate", "Hello", key=company.key)
    plant = "UPDATE counter SET settled = settled + $2 WHERE tenant_id = $1 RETURNING 1"
    running_stack.query(plant, company.tenant, 1)

    found = tollhouse("ledger", "verify", *at, "-o", "csv")
    running_stack.query(plant, company.tenant, -1)

    assert found.returncode == 1
    assert f"tenants/{company.tenant},counters,counter," in found.stdout.replace('"', "")
    assert "LEDGER_DOES_NOT_ADD_UP" in found.stderr
