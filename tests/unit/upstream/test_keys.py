"""Keys with which no call can be made are told from others."""

import orjson
import pytest
from tollhouse_server.upstream.keys import UnusableKeyError, require_usable
from tollhouse_server.upstream.protocol import UpstreamKind

SERVICE_ACCOUNT = orjson.dumps(
    {"type": "service_account", "client_email": "a@b", "private_key": "PEM", "token_uri": "https://t.example"}
).decode()
WORDS = (UpstreamKind.GEMINI_API, UpstreamKind.OPENAI_COMPATIBLE)


@pytest.mark.parametrize("kind", UpstreamKind)
@pytest.mark.parametrize("key", ["AIzaSy-0_~!", " AIza\n", "ya29.a0+/="])
def test_one_word_is_a_key_of_any_kind(key: str, kind: UpstreamKind) -> None:
    """White space around it is not sent: files end with a line's end."""
    require_usable(key, kind)


@pytest.mark.parametrize("kind", UpstreamKind)
@pytest.mark.parametrize("key", ["AIza1\nAIza2", "two words", "schlüssel", "a\0b", " \n", "tab\tin"])
def test_what_cannot_stand_in_a_header_is_no_key(key: str, kind: UpstreamKind) -> None:
    """And the error quotes nothing of it."""
    with pytest.raises(UnusableKeyError) as refused:
        require_usable(key, kind)

    assert not any(part in str(refused.value) for part in ("AIza", "two", "schl", "a\0"))


@pytest.mark.parametrize("kind", WORDS)
def test_a_service_accounts_key_is_for_vertex_alone(kind: UpstreamKind) -> None:
    """Elsewhere it would be sent as it is."""
    require_usable(SERVICE_ACCOUNT, UpstreamKind.VERTEX)
    with pytest.raises(UnusableKeyError, match="vertex"):
        require_usable(SERVICE_ACCOUNT, kind)


@pytest.mark.parametrize("key", ["{", '{"type": "service_account"}', SERVICE_ACCOUNT.replace("service_a", "user_a")])
def test_other_json_is_no_key(key: str) -> None:
    """Nor is half of a service account's."""
    with pytest.raises(UnusableKeyError):
        require_usable(key, UpstreamKind.VERTEX)
