"""Settings: upstream addresses, egress proxies and token endpoints are an allow-list that is read strictly."""

import json
from typing import Any

import pytest
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.setting_values import UPSTREAM_KINDS
from tollhouse_server.settings import Settings, load_settings
from tollhouse_server.upstream.protocol import UpstreamKind

PASSWORD = "a-password-that-must-be-seen-nowhere"
PROXY = f"http://proxy-user:{PASSWORD}@proxy.internal:3128"


def loaded(monkeypatch: pytest.MonkeyPatch, **variables: Any) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"TOLLHOUSE_{name.upper()}", value if isinstance(value, str) else json.dumps(value))
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: Any) -> str:
    with pytest.raises(InvalidRequest) as refused:
        loaded(monkeypatch, **variables)
    return str(refused.value)


def test_google_is_reached_without_any_setting() -> None:
    """The Developer API and Vertex AI have their addresses; a company's own servers have none before it names them."""
    settings = Settings()

    assert settings.addresses() == {
        "gemini_api": "https://generativelanguage.googleapis.com",
        "vertex": "https://{region}-aiplatform.googleapis.com",
    }
    assert settings.egress_urls() == {}
    assert settings.upstream_token_urls == ("https://oauth2.googleapis.com/token",)


def test_a_deployment_adds_addresses_and_may_replace_vertex(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named by its kind, or by its kind and more."""
    named = {"vertex": "https://vertex.example", "gemini_api-relay": "https://relay.example/gemini/"}

    addresses = loaded(monkeypatch, upstream_addresses=named).addresses()

    assert addresses["vertex"] == "https://vertex.example"
    assert addresses["gemini_api-relay"] == "https://relay.example/gemini"
    assert next(iter(addresses)) == "gemini_api"


@pytest.mark.parametrize(
    "named",
    [
        {"openai_compatible": "http://gemma.internal:8000"},
        {"gemini_api-simulator": "http://127.0.0.1:8090"},
        {"vertex-simulator": "http://[::1]:8090"},
        {"vertex-local": "http://localhost:8090/{region}"},
    ],
)
def test_clear_text_is_for_this_machine_and_for_servers_of_the_companys_own(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    """A model server in a company's network mostly has no certificate; everything else needs one."""
    assert loaded(monkeypatch, upstream_addresses=named).upstream_addresses == named


@pytest.mark.parametrize(
    ("named", "entry"),
    [
        ({"vertex-far": "http://vertex.example"}, "'vertex-far' must be an https URL"),
        ({"gemini_api-x": "http://127.0.0.1.example"}, "'gemini_api-x' must be an https URL"),
        ({"gemini": "https://gemini.example"}, "'gemini' must be a kind of upstream"),
        ({"gemini_api": "https://gemini.example"}, "'gemini_api' is set by TOLLHOUSE_GEMINI_BASE_URL"),
        ({"vertex-a": "https://{project}.example"}, "'vertex-a' may hold {region} and no other braces"),
        ({"vertex-a": f"https://me:{PASSWORD}@a.example"}, "'vertex-a' must be a URL without user"),
        ({"vertex-a": "https://a.example/?key=1"}, "'vertex-a' must be a URL without user, query and fragment"),
        ({"vertex-a": "https://a.example#"}, "'vertex-a' must be a URL without user, query and fragment"),
        ({"vertex-a": "ftp://a.example"}, "'vertex-a' must be a URL"),
        ({"vertex-a": "https://"}, "'vertex-a' must be a URL"),
        ({"vertex-a": "https://a.example:99999"}, "'vertex-a' must be a URL"),
        ({"vertex-a": "https://a.example\r\nhost: b"}, "'vertex-a' must be a URL"),
        ({"vertex-a": 1}, "'vertex-a' must be a URL"),
        (["https://a.example"], "must be a JSON object"),
        ("https://a.example", "is not JSON"),
        ('{"vertex-a": "https://a.example", "vertex-a": "https://b.example"}', "'vertex-a' is there twice"),
    ],
)
def test_a_wrong_address_is_refused_by_its_entry(monkeypatch: pytest.MonkeyPatch, named: Any, entry: str) -> None:
    """The server does not start, and says which variable and which entry is wrong, but no password."""
    text = refusal(monkeypatch, upstream_addresses=named)

    assert f"TOLLHOUSE_UPSTREAM_ADDRESSES: {entry}" in text
    assert PASSWORD not in text


@pytest.mark.parametrize(
    ("named", "entry"),
    [
        ({"hk": PROXY.removesuffix(":3128")}, "'hk' must be a URL of the form"),
        ({"hk": f"{PROXY}/path"}, "'hk' must be a URL of the form"),
        ({"hk": PROXY.replace("http", "socks5")}, "'hk' must be a URL of the form"),
        ({"hk": PROXY.replace("3128", "port")}, "'hk' must be a URL of the form"),
        ({"Hong Kong": PROXY}, "'Hong Kong' must be lower-case letters"),
        ({"hk": [PROXY]}, "'hk' must be a URL"),
        (f'{{"hk": "{PROXY}"', "is not JSON"),
        (PROXY, "is not JSON"),
    ],
)
def test_a_wrong_proxy_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, named: Any, entry: str) -> None:
    """What stands in a proxy's URL is a secret even where it is wrong."""
    text = refusal(monkeypatch, egress_proxies=named)

    assert f"TOLLHOUSE_EGRESS_PROXIES: {entry}" in text
    assert PASSWORD not in text


def test_a_proxys_password_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who asks for the URL gets it."""
    settings = loaded(monkeypatch, egress_proxies={"hk": PROXY})

    assert PASSWORD not in f"{settings!r}{settings}{settings.model_dump()}"
    assert settings.egress_urls() == {"hk": PROXY}


@pytest.mark.parametrize("urls", [["http://token.example"], "https://token.example", {"a": "b"}, [1], ["https://"]])
def test_a_wrong_token_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch, urls: Any) -> None:
    """A service account's key names where it is shown; only these places may be named."""
    assert "TOLLHOUSE_UPSTREAM_TOKEN_URLS: " in refusal(monkeypatch, upstream_token_urls=urls)


def test_worker_processes_get_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, URLs and secrets travel to them by the environment and come out as they went in."""
    addresses = {"openai_compatible": "http://127.0.0.1:1"}
    tokens = ["https://a.example", "http://127.0.0.1:2/token"]
    settings = loaded(
        monkeypatch, egress_proxies={"hk": PROXY}, upstream_addresses=addresses, upstream_token_urls=tokens
    )

    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    assert load_settings() == settings


def test_the_kinds_of_addresses_are_the_kinds_of_upstream() -> None:
    """Settings stand below the room that knows the kinds, and say the same."""
    assert tuple(UpstreamKind) == UPSTREAM_KINDS


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SMTP_HOST": "mail.example"}, "TOLLHOUSE_SMTP_SENDER"),
        ({"SMTP_HOST": "m", "SMTP_SENDER": "a@b", "SMTP_SECURITY": "none", "SMTP_PASSWORD": "x"}, "kept private"),
        ({"SMTP_RECIPIENT_DOMAINS": '"acme.example"'}, "JSON list of domains"),
    ],
)
def test_a_mail_server_that_could_not_be_used_safely_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    """It is told at the start, not with the first statement of the month."""
    for name, value in variables.items():
        monkeypatch.setenv(f"TOLLHOUSE_{name}", value)

    with pytest.raises(InvalidRequest) as caught:
        load_settings()

    assert says in caught.value.violations[0].description
