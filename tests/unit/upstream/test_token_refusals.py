"""What is told of a token server that says back the assertion it was shown."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.protocol import Refused
from tollhouse_server.upstream.tokens import AccessTokens

from tests.drivers.echo import REFUSED_TOKEN, running_echo


def service_account(token_url: str) -> str:
    """Return a service account's key as Google's JSON."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "a@b.test", "private_key": pem, "token_uri": token_url}
    return json.dumps(account)


async def test_an_assertion_in_place_of_a_reason_is_not_quoted() -> None:
    """A reason is one of RFC 6749's words; whatever else stands there may be what was sent."""
    with running_echo("unused") as echo:
        url = f"{echo.url}{REFUSED_TOKEN}"
        async with open_transport() as transport:
            tokens = AccessTokens(transport, token_urls=[url])
            with pytest.raises(Refused) as raised:
                await tokens.bearer(service_account(url), egress_url="", timeout_seconds=5)

    (assertion,) = echo.assertions
    assert assertion[-40:] not in f"{raised.value.body}"
    assert raised.value.error["message"] == "the token server refused the key"
