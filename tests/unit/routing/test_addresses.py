"""The allow-list of upstream addresses and proxies: what an account may name, and what becomes of it."""

from typing import Any

import pytest
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.tables import AccountRow
from tollhouse_server.settings import VERTEX_ADDRESS

ADDRESSES = Addresses(
    base_urls={
        "gemini_api": "https://gemini.example",
        "gemini_api-near": "https://{region}.relay.example/gemini",
        "vertex": VERTEX_ADDRESS,
        "vertex-relay": "https://relay.example/{region}",
        "openai_compatible-gemma": "http://gemma.internal:8000",
    },
    egress_urls={"hong-kong": "http://user:password@127.0.0.1:3128"},
)


def account(**fields: Any) -> AccountRow:
    return AccountRow(**{"account_id": "a", "kind": "gemini_api", "base_url_key": "gemini_api", **fields})


def vertex(**fields: Any) -> AccountRow:
    given = {"kind": "vertex", "base_url_key": "vertex", "project": "acme-prod", "region": "europe-west4"}
    return account(**{**given, **fields})


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
        ("global", "https://aiplatform.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_vertex_is_reached_where_googles_own_client_reaches_it(region: str, host: str) -> None:
    """Single regions have a host each; global, us and eu have hosts of another form."""
    assert ADDRESSES.base_url("vertex", region) == host


def test_a_relay_gets_the_region_as_it_is() -> None:
    """Google's exceptions hold for Google's hosts only."""
    assert ADDRESSES.base_url("vertex-relay", "global") == "https://relay.example/global"


@pytest.mark.parametrize(
    "row",
    [
        account(),
        account(base_url_key="gemini_api-near", region="asia-east2"),
        account(egress="hong-kong"),
        vertex(),
        vertex(region="global", base_url_key="vertex-relay"),
        vertex(project="example.com:acme"),
        account(kind="openai_compatible", base_url_key="openai_compatible-gemma"),
    ],
)
def test_an_account_that_settings_allow_is_accepted(row: AccountRow) -> None:
    """Each kind at an address of its kind, with what its kind needs."""
    assert ADDRESSES.violations(row) == ()
    assert ADDRESSES.allows(row)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (account(base_url_key="https://evil.example"), "endpoint"),
        (account(base_url_key="vertex"), "endpoint"),
        (account(kind="vertex", project="acme-prod", region="us"), "endpoint"),
        (account(kind="openai_compatible", base_url_key="gemini_api"), "endpoint"),
        (account(egress="http://evil.example:1"), "egress"),
        (account(base_url_key="gemini_api-near"), "region"),
        (account(base_url_key="gemini_api-near", region="evil.example/"), "region"),
        (account(region="Europe"), "region"),
        (vertex(region=""), "region"),
        (vertex(project=""), "google_project"),
        (vertex(project="acme/../../evil"), "google_project"),
    ],
)
def test_an_account_that_names_its_own_way_is_refused_by_field(row: AccountRow, field: str) -> None:
    """Whatever becomes part of a URL is checked, so that nobody sends keys to a host of his choice."""
    assert [violation.path for violation in ADDRESSES.violations(row)] == [f"account.{field}"]


def test_what_is_wrong_is_told_at_once_and_without_a_proxys_password() -> None:
    """Every field with what would be right."""
    wrong = vertex(base_url_key="x", egress="y", region="", project="")

    violations = {one.path: one.description for one in ADDRESSES.violations(wrong)}

    assert violations["account.endpoint"] == "must be one of: vertex, vertex-relay"
    assert violations["account.egress"] == "must be one of: hong-kong"
    assert set(violations) == {f"account.{name}" for name in ("endpoint", "egress", "region", "google_project")}
    assert "password" not in f"{violations}{ADDRESSES!r}"
