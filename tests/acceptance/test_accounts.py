"""Accounts of every kind through the command line, against the running server."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.drivers.command_line import CommandLine

_VERTEX = ("--upstream", "vertex", "--google-project", "acme-prod", "--region", "europe-west4")
_RELAY = '[[surcharges]]\nendpoint = "gemini_api-no-such-relay"\npercent = "7.5"\neffective_from = 2026-11-01\n'


@pytest.fixture
def account(tollhouse: CommandLine) -> Iterator[str]:
    """An id for an account that is gone after the test: others share the server."""
    account = f"acc-{uuid4().hex[:8]}"
    yield account
    tollhouse("accounts", "delete", account, "--yes")


def test_a_vertex_account_and_a_company_server_are_created_and_listed(tollhouse: CommandLine, account: str) -> None:
    """Amounts are typed as people write them, money in dollars, and come back exactly."""
    limits = ("requests-per-minute=600", "gemini-3.8-flash:input-tokens-per-minute=1.5M", "spend-per-10-minutes=$50")
    own = f"{account}-own"
    given = [part for limit in limits for part in ("--limit", limit)]

    tollhouse.ok("accounts", "create", account, *_VERTEX, "--environment", "test", *given)
    tollhouse.ok("accounts", "disable", account, "--yes")
    tollhouse.ok("accounts", "create", own, "--upstream", "openai-compatible", "--limit", "concurrent-calls=8")
    tollhouse.ok("accounts", "disable", own, "--yes")
    listed = {entry["name"]: entry for entry in tollhouse.json("accounts", "list")}
    shown = tollhouse.ok("accounts", "list", "-o", "csv")
    tollhouse.ok("accounts", "delete", own, "--yes")

    vertex, server = listed[f"accounts/{account}"], listed[f"accounts/{own}"]
    assert (vertex["upstream"], vertex["endpoint"], vertex["environment"]) == (
        "UPSTREAM_VERTEX",
        "vertex",
        "ENVIRONMENT_TEST",
    )
    assert [(limit["metric"], limit["model"], json.dumps(limit["amount"])) for limit in vertex["limits"]] == [
        ("METRIC_REQUESTS_PER_MINUTE", "", '{"units": "600"}'),
        ("METRIC_INPUT_TOKENS_PER_MINUTE", "gemini-3.8-flash", '{"units": "1500000"}'),
        ("METRIC_SPEND_PER_10_MINUTES", "", '{"money": {"currencyCode": "USD", "units": "50", "nanos": 0}}'),
    ]
    assert (server["upstream"], server["endpoint"]) == ("UPSTREAM_OPENAI_COMPATIBLE", "openai_compatible")
    assert (
        "requests-per-minute=600, gemini-3.8-flash:input-tokens-per-minute=1500000, spend-per-10-minutes=$50" in shown
    )


def test_what_settings_do_not_name_is_refused(tollhouse: CommandLine, account: str) -> None:
    """No host, no proxy and no address of another kind; the message says what there is."""
    refusals = {
        "account.endpoint: must be one of: gemini_api": ("--endpoint", "https://evil.example"),
        "account.endpoint: must be one of: vertex": (*_VERTEX, "--endpoint", "gemini_api"),
        "account.egress: the settings name no proxy": ("--egress", "http://evil.example:3128"),
        "account.region: must be lower-case": ("--region", "evil.example/"),
    }

    for message, options in refusals.items():
        refused = tollhouse("accounts", "create", account, *options)

        assert refused.returncode == 5, refused.stderr
        assert message in refused.stderr

    assert tollhouse("accounts", "show", account).stderr.startswith("error: RESOURCE_NOT_FOUND")


def test_an_account_is_changed_field_by_field(tollhouse: CommandLine, account: str) -> None:
    """Limits are replaced or removed; a wrong one is refused before anything is sent."""
    tollhouse.ok("accounts", "create", account, "--limit", "requests-per-day=10k", "--environment", "test")
    tollhouse.ok("accounts", "disable", account, "--yes")

    replaced = tollhouse.json("accounts", "update", account, "--limit", "images-per-minute=5")
    everyone = tollhouse.json("accounts", "update", account, "--environment", "all", "--no-limits")
    wrong = [tollhouse("accounts", "update", account, "--limit", text) for text in ("5", "images=5", "x=1", "=")]

    assert [limit["metric"] for limit in replaced["limits"]] == ["METRIC_IMAGES_PER_MINUTE"]
    assert replaced["environment"] == "ENVIRONMENT_TEST"
    assert (everyone["environment"], everyone["limits"]) == ("ENVIRONMENT_UNSPECIFIED", [])
    assert {ended.returncode for ended in wrong} == {2}


def test_a_relays_surcharge_is_imported_and_listed(tollhouse: CommandLine) -> None:
    """A dry run shows what it would change; per cent and address stand beside the models' prices."""
    (tollhouse.directory / "relay.toml").write_text(_RELAY)

    preview = tollhouse.ok("prices", "import", "relay.toml", "--dry-run", "-o", "csv")
    tollhouse.ok("prices", "import", "relay.toml")
    listed = tollhouse.json("prices", "list", "--limit", "1")

    assert ",relay_surcharge,percent,,7.5" in preview
    assert (listed[0]["endpoint"], listed[0]["percent"]) == ("gemini_api-no-such-relay", "7.5")
