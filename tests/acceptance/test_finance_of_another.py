"""Finance of one tenant with the command line before the books of another: refused, and nothing is told."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.drivers.command_line import CommandLine, Company

_MONTH = "2026-10"
_LIMITS = "limits:\n- {id: two, metric: requests, window: month, mode: strict, amount: 2}\n"
_DENIED = 3

_OF_TENANTS: tuple[tuple[str, ...], ...] = (
    ("report", "month", "--month", _MONTH),
    ("report", "month", "--month", _MONTH, "--department", "research"),
    ("report", "show", "--month", _MONTH),
    ("report", "show", "--month", _MONTH, "--department", "research"),
    ("report", "export", "--month", _MONTH, "--file", "-"),
    ("report", "export", "--month", _MONTH, "--records", "--file", "-"),
    ("report", "records"),
    ("report", "records", "--department", "research", "--project", "chat"),
    ("report", "periods"),
    ("report", "period", _MONTH),
    ("report", "preview", _MONTH),
    ("report", "reopen", _MONTH),
    ("report", "close", _MONTH, "--yes"),
    ("report", "close", _MONTH, "--yes", "--dry-run"),
    ("report", "adjust", "gift", "--credit", "5", "--reason", "because"),
    ("report", "adjustments"),
    ("wallets", "create", "mine"),
    ("wallets", "list"),
    ("wallets", "show", "purse"),
    ("wallets", "show", "nosuch"),
    ("wallets", "top-up", "purse", "5"),
    ("wallets", "top-up", "nosuch", "5"),
    ("wallets", "top-ups", "purse"),
    ("allocations", "list"),
    ("allocations", "show", "fee"),
    ("allocations", "show", "nosuch"),
    ("allocations", "end", "fee", "--on", _MONTH),
    ("charge-rules", "list"),
    ("deliveries", "schedules"),
    ("deliveries", "list"),
    ("returns", "list"),
    ("forecast",),
    ("forecast", "--department", "research"),
    ("simulate", "--month", _MONTH, "--limits", "limits.yaml"),
    ("simulate", "--month", _MONTH, "--routing", "routing.yaml"),
    ("simulate", "--month", _MONTH, "--prices", "1"),
)
_ALLOCATION = ("--title", "Fee", "--amount", "10", "--method", "evenly", "--reason", "because", "--from", _MONTH)

_OF_THE_PLATFORM: tuple[tuple[str, ...], ...] = (
    ("reconcile", "list"),
    ("reconcile", "imports"),
    ("reconcile", "run", _MONTH),
    ("reconcile", "show", _MONTH),
    ("reconcile", "variances", _MONTH),
    ("reconcile", "variance", "nosuch"),
    ("reconcile", "accept", "nosuch", "--reason", "because", "--yes"),
    ("reconcile", "policy"),
    ("reconcile", "set-policy", "--absolute", "5"),
)


@pytest.fixture
def strangers_key(tollhouse: CommandLine, company: Company) -> Iterator[str]:
    """A key of somebody who has finance, and administers, another tenant than the company."""
    rival = company.tenant.replace("acme", "rival")
    here = ("--tenant", rival)
    tollhouse.ok("tenants", "create", rival)
    tollhouse.ok("principals", "create", "cfo", *here)
    for role in ("finance", "tenant-admin"):
        tollhouse.ok("roles", "grant", "cfo", role, *here)
    yield str(tollhouse.json("keys", "create", "--principal", "cfo", *here)["secret"])


def asked(tollhouse: CommandLine, key: str, tenant: str, command: Sequence[str]) -> tuple[int, str, str]:
    """Return what a command about a tenant comes to; the tenant's name is taken out of what it says."""
    ended = tollhouse(*command, "--tenant", tenant, key=key)
    return ended.returncode, ended.stdout, ended.stderr.replace(tenant, "TENANT")


def test_books_of_another_tenant_are_refused_as_those_of_none(
    tollhouse: CommandLine, company: Company, strangers_key: str, tmp_path: Path
) -> None:
    """Whatever is asked for, be it there or not: the answer is that to a tenant that does not exist."""
    (tmp_path / "limits.yaml").write_text(_LIMITS)
    (tmp_path / "routing.yaml").write_text("tiers/pro: gemini-3.5-flash\n")
    here = ("--tenant", company.tenant)
    tollhouse.ok("wallets", "create", "purse", *here)
    tollhouse.ok("allocations", "create", "fee", *here, *_ALLOCATION)

    commands = [*_OF_TENANTS, ("allocations", "create", "mine", *_ALLOCATION)]
    found = [asked(tollhouse, strangers_key, company.tenant, command) for command in commands]
    of_none = [asked(tollhouse, strangers_key, company.tenant.replace("acme", "none"), command) for command in commands]

    assert found == of_none
    assert {command: one for command, one in zip(commands, found, strict=True) if one[:2] != (_DENIED, "")} == {}
    assert [wallet["name"] for wallet in tollhouse.json("wallets", "list", *here)] == [
        f"tenants/{company.tenant}/wallets/purse"
    ]


def test_the_platforms_bill_is_refused_to_finance_of_a_tenant(
    tollhouse: CommandLine, company: Company, strangers_key: str
) -> None:
    """Whether a month was compared, and with what result, is not told."""
    for command in _OF_THE_PLATFORM:
        ended = tollhouse(*command, key=strangers_key)

        assert (ended.returncode, ended.stdout) == (_DENIED, ""), (command, ended.stderr)
