"""What the simulator's tests share: the real SDK pointed at a simulator, and the arithmetic of its usage."""

from __future__ import annotations

from typing import Any

from google import genai
from google.genai import types
from google.oauth2 import service_account
from tollhouse_server.simulator.client import RunningSimulator, ServedCall

# genai.client.AsyncClient; its types make every field of an answer optional, which would be asserted away everywhere.
Gemini = Any


class LocalCredentials(service_account.Credentials):
    """Credentials that do not ask Google, in a thread of their own, where a made-up account may call from."""

    def _is_regional_access_boundary_lookup_required(self) -> bool:
        return False


def credentials_of(account: dict[str, Any], scopes: list[str] | None = None) -> LocalCredentials:
    credentials: LocalCredentials = LocalCredentials.from_service_account_info(account, scopes=scopes)  # type: ignore[no-untyped-call]
    return credentials


def sdk(simulator: RunningSimulator, key: str, version: str = "v1beta") -> Gemini:
    options = types.HttpOptions(
        base_url=simulator.url, api_version=version, retry_options=types.HttpRetryOptions(attempts=1)
    )
    return genai.Client(api_key=key, http_options=options).aio


async def calls_of(simulator: RunningSimulator, key: str) -> list[ServedCall]:
    known = await simulator.accept_key(key)
    return await simulator.calls(key_id=known["id"])


def assert_adds_up(usage: types.GenerateContentResponseUsageMetadata | None) -> None:
    assert usage is not None
    parts = (usage.prompt_token_count, usage.candidates_token_count, usage.tool_use_prompt_token_count)
    assert usage.total_token_count == sum(each or 0 for each in (*parts, usage.thoughts_token_count))
    details = {
        "prompt_token_count": usage.prompt_tokens_details,
        "candidates_token_count": usage.candidates_tokens_details,
        "cached_content_token_count": usage.cache_tokens_details,
        "tool_use_prompt_token_count": usage.tool_use_prompt_tokens_details,
    }
    for name, detail in details.items():
        assert sum(each.token_count or 0 for each in detail or ()) == (getattr(usage, name) or 0), name
