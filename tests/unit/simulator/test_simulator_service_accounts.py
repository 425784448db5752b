"""What the token endpoint believes: signature, audience and time of an assertion."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from google.auth import crypt, jwt
from tollhouse_server.simulator import errors
from tollhouse_server.simulator.errors import GeminiError
from tollhouse_server.simulator.service_accounts import GOOGLE_TOKEN_URI, OAuthRefused, ServiceAccounts

pytestmark = pytest.mark.asyncio(loop_scope="module")
_NOW = 1_790_000_000
_ENDPOINT = "http://127.0.0.1:8090/token"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issued() -> tuple[ServiceAccounts, dict[str, Any]]:
    accounts = ServiceAccounts(clock=lambda: _NOW)
    return accounts, await accounts.issue_key({"project": "p"}, _ENDPOINT)


def assertion(credentials: dict[str, Any], **claims: Any) -> str:
    """Sign a good assertion, changed by `claims`."""
    good = {"iss": credentials["client_email"], "aud": _ENDPOINT, "iat": _NOW, "exp": _NOW + 3_600, "scope": "s"}
    signer = crypt.RSASigner.from_service_account_info(credentials)  # type: ignore[no-untyped-call]
    return bytes(jwt.encode(signer, good | claims)).decode()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("audience", [_ENDPOINT, GOOGLE_TOKEN_URI])
async def test_an_assertion_for_this_endpoint_or_googles_gets_a_token(
    issued: tuple[ServiceAccounts, dict[str, Any]], audience: str
) -> None:
    """The token stands for the account's key until its hour is over."""
    accounts, credentials = issued

    answer = accounts.grant(assertion(credentials, aud=audience), [_ENDPOINT])
    grant = accounts.admit(answer["access_token"], project="p", service=errors.VERTEX)

    assert (answer["expires_in"], answer["token_type"]) == (3_599, "Bearer")
    assert grant is not None
    assert grant.private_key_id == credentials["private_key_id"]


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"aud": "https://elsewhere.example/token"}, "audience"),
        ({"exp": _NOW}, "short-lived"),
        ({"exp": _NOW + 3_601}, "short-lived"),
        ({"iat": _NOW + 3_000, "exp": _NOW + 3_100}, "short-lived"),
        ({"exp": "soon"}, "short-lived"),
        ({"iss": "nobody"}, "not found"),
    ],
)
async def test_an_assertion_that_claims_otherwise_is_an_invalid_grant(
    issued: tuple[ServiceAccounts, dict[str, Any]], claims: dict[str, Any], said: str
) -> None:
    """Whoever signed it, for whom and when, each is looked at."""
    accounts, credentials = issued

    with pytest.raises(OAuthRefused) as refused:
        accounts.grant(assertion(credentials, **claims), [_ENDPOINT])

    assert refused.value.body["error"] == "invalid_grant"
    assert said in refused.value.body["error_description"]


@pytest.mark.parametrize("garbage", ["", "a.b", "e30.e30.e30", "....", "é.é.é", "bnVsbA.bnVsbA.x"])
async def test_garbage_is_an_invalid_grant(issued: tuple[ServiceAccounts, dict[str, Any]], garbage: str) -> None:
    """Nothing that is sent gets another answer."""
    with pytest.raises(OAuthRefused) as refused:
        issued[0].grant(garbage, [_ENDPOINT])

    assert refused.value.body["error"] == "invalid_grant"


async def test_a_revoked_token_is_refused_and_a_strange_one_unknown(
    issued: tuple[ServiceAccounts, dict[str, Any]],
) -> None:
    """A token of Google's form that is not out is never taken for a key that nobody named."""
    accounts, credentials = issued
    token = accounts.grant(assertion(credentials), [_ENDPOINT])["access_token"]
    accounts.revoke_tokens(credentials["client_email"])

    with pytest.raises(GeminiError) as refused:
        accounts.admit(token, project=None, service=errors.VERTEX)

    assert refused.value.code == 401
    assert accounts.admit("anything", project=None, service=errors.VERTEX) is None
