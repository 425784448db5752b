"""What an error of Google's API Keys API tells, when the API says back all that it was asked."""

import pytest
from tollhouse_server.custody.providers.google import ApiKeysAddress, ApiKeysProvider
from tollhouse_server.custody.providers.protocol import KeyOrder
from tollhouse_server.errors import KeyProviderFailed, SecretMissing
from tollhouse_server.vault.secret_text import SecretFields, SecretText

from tests.drivers.echo import running_echo

KEY, BEARER = "canary/key of no shape", "canary-bearer-of-no-shape"
ORDER = KeyOrder(account_id="a", project="some-project", key_id="key-2", old_key_id="key-1", old_version=1)


class EmptyVault:
    """Vault before anybody has put a credential there."""

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        del version
        raise SecretMissing(path=path)


class OneBearer:
    """A token server that gives everybody the same."""

    async def bearer(self, key: str, *, egress_url: str, timeout_seconds: float) -> str:
        del key, egress_url, timeout_seconds
        return BEARER


async def test_neither_key_nor_token_stands_in_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A key is looked up by a URL that holds it, and Google's library quotes the URL of a request that failed."""
    with running_echo("unused") as echo:
        provider = ApiKeysProvider(EmptyVault(), OneBearer(), ApiKeysAddress(endpoint=echo.url, token="any"))
        with pytest.raises(KeyProviderFailed) as retiring:
            await provider.retire(ORDER, provider_key="", secret=SecretText(KEY))
        with pytest.raises(KeyProviderFailed) as issuing:
            await provider.issue(ORDER)

    told = [f"{one.value!r} {one.value} {one.value.__cause__!r}" for one in (retiring, issuing)]
    assert "keyString=[redacted]" in told[0]
    assert "Forbidden" in told[1]
    assert not [text for text in told if "canary" in text]
    assert "canary" not in capsys.readouterr().err
