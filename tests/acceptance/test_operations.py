"""How it is going and what is wrong, as an operator and as a tenant's people see it: CLI, server, ledger."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.drivers.callers import generation_stub, prompt
from tests.drivers.command_line import CommandLine, Company
from tests.drivers.places import servers_place
from tests.drivers.stack import RunningStack, running_stack_in


@pytest.fixture(scope="module")
def running_stack() -> Iterator[RunningStack]:
    """A server of this module's own: in one that others share, what they do is found."""
    with servers_place("stack") as directory, running_stack_in(directory, workers=1) as stack:
        yield stack


def checks(tollhouse: CommandLine, *options: str, key: str = "") -> dict[str, dict[str, str]]:
    """What `doctor` found, by name; it may have failed."""
    ended = tollhouse("doctor", "-o", "json", *options, key=key)
    return {one["name"]: one for one in json.loads(ended.stdout)["checks"]}


def status(tollhouse: CommandLine, *options: str, key: str = "") -> Any:
    """The one line of `top`."""
    [line] = tollhouse.ok("top", "--once", "--interval", "1", "-o", "json", *options, key=key).splitlines()
    return json.loads(line)


def spend(stack: RunningStack, key: str) -> None:
    """Make a call that is charged."""
    with generation_stub(stack) as stub:
        stub.GenerateContent(prompt("Hello"), metadata=(("authorization", f"Bearer {key}"),), timeout=20)


def test_a_server_that_is_well_passes_every_check(running_stack: RunningStack, tollhouse: CommandLine) -> None:
    """With a real call to each upstream, one that costs nothing."""
    found = checks(tollhouse, "--probe")

    wrong = {name: one["seen"] for name, one in found.items() if one["outcome"] in ("failure", "warning")}
    assert wrong == {}
    for name in (
        "postgres.migrations",
        "postgres.writable",
        "postgres.row-security",
        "vault.sealed",
        "vault.custodian",
        "metrics.processes",
    ):
        assert found[name]["outcome"] == "ok", name
    assert found["upstream.main.probe"]["outcome"] == "ok"
    assert found["upstream.main"]["outcome"] == "ok"


@pytest.mark.parametrize("model", [("--model", "gemini-2.5-pro"), ()], ids=["one-model", "whole-account"])
def test_a_breaker_that_is_held_open_is_found_and_shown(
    running_stack: RunningStack, tollhouse: CommandLine, model: tuple[str, ...]
) -> None:
    """With the command that takes the order back, as it was given."""
    tollhouse.ok("breakers", "open", "main", *model, "--reason", "a test of doctor", "-y")
    try:
        found = checks(tollhouse, "--only", "upstream")["upstream.breakers"]
        seen = status(tollhouse)["status"]["troubledBreakers"]
    finally:
        tollhouse.ok("breakers", "auto", "main", *model)

    assert found["outcome"] == "failure"
    assert found["advice"].endswith(" ".join(["tollhouse breakers auto main", *model]))
    assert ("accounts/main", "gemini-2.5-pro", True) in [(one["account"], one["model"], one["forced"]) for one in seen]
    assert not model or len(seen) == 1


def test_the_platform_sees_calls_spend_and_every_budget(
    running_stack: RunningStack, tollhouse: CommandLine, company: Company
) -> None:
    """Of all tenants; and how the server that answers is doing."""
    tollhouse.ok(
        *("limits", "create", "tight", "--tenant", company.tenant, "--department", "research"),
        *("--metric", "cost", "--window", "month", "--amount", "$0.000001", "--mode", "soft"),
    )
    spend(running_stack, company.key)

    found = status(tollhouse)

    fullest = found["status"]["budgets"][0]
    assert fullest["limit"] == f"tenants/{company.tenant}/limits/tight"
    assert fullest["scope"] == company.department
    assert fullest["usedRatio"] > 1
    assert nanos(found["status"]["spend"]["lastHour"]) > 0
    assert nanos(found["status"]["spend"]["monthToDate"]) >= nanos(found["status"]["spend"]["lastHour"])
    assert found["rates"]["callsPerSecond"] > 0
    assert {one["role"]: one["count"] for one in found["status"]["counters"]["processes"]} == {
        "worker": "1",
        "housekeeper": "1",
    }


def nanos(money: Any) -> int:
    """An amount in nano-dollars."""
    return int(money.get("units", 0)) * 10**9 + int(money.get("nanos", 0))


@pytest.fixture
def head(company: Company, tollhouse: CommandLine) -> str:
    """A key of somebody who administers department research of the company, and nothing else."""
    return key_of(tollhouse, company, "head", "department-admin", "--department", "research")


def key_of(tollhouse: CommandLine, company: Company, who: str, role: str, *where: str) -> str:
    """Make a principal with a role and return a key of his."""
    tenant = ("--tenant", company.tenant)
    tollhouse.ok("principals", "create", who, *tenant)
    tollhouse.ok("roles", "grant", who, role, *tenant, *where)
    return str(tollhouse.json("keys", "create", "--principal", who, *tenant)["secret"])


def test_a_department_sees_its_own_budgets_and_spend_alone(
    running_stack: RunningStack, tollhouse: CommandLine, company: Company, head: str
) -> None:
    """Neither its neighbours nor the tenant above it, nor anything of the platform."""
    tenant = ("--tenant", company.tenant)
    tollhouse.ok("departments", "create", "below", "--under", "research", *tenant)
    tollhouse.ok("departments", "create", "beside", *tenant)
    for name, where in {"own": "research", "lower": "below", "foreign": "beside", "all": ""}.items():
        at = ("--department", where) if where else ()
        amount = ("--metric", "cost", "--window", "month", "--amount", "$10")
        tollhouse.ok("limits", "create", name, *tenant, *at, *amount)
    spend(running_stack, company.key)

    found = status(tollhouse, key=head)["status"]

    assert found["scope"] == company.department
    assert {one["limit"].rpartition("/")[2] for one in found["budgets"]} == {"own", "lower"}
    assert [one["department"] for one in found["departments"]] == [company.department]
    assert nanos(found["spend"]["monthToDate"]) > 0
    assert found["recentUsage"]["calls"] == "1"
    assert "counters" not in found
    assert found["accounts"] == []


def test_another_tenants_administrator_is_told_nothing(
    tollhouse: CommandLine, company: Company, running_stack: RunningStack
) -> None:
    """Neither of the platform nor of another tenant; his own he sees, and his side of doctor."""
    admin = key_of(tollhouse, company, "boss", "tenant-admin")

    own = status(tollhouse, key=admin)["status"]
    foreign = tollhouse("top", "--once", "--scope", "tenants/demo", key=admin)
    platform = tollhouse("top", "--once", "--scope", "platform", key=admin)
    found = checks(tollhouse, key=admin)

    assert own["scope"] == f"tenants/{company.tenant}"
    assert (foreign.returncode, platform.returncode) == (3, 3)
    assert found["server"]["outcome"] == "skipped"
    assert found["cli.credential"]["outcome"] == "ok"
    assert not any(name.startswith(("postgres", "vault", "upstream")) for name in found)
