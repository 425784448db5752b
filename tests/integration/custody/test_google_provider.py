"""The provider `google` against the simulator's API Keys API and token endpoint, through Google's client library."""

import json

import pytest
from tollhouse_server.custody.providers.google import CREDENTIAL_FIELD, ApiKeysAddress, ApiKeysProvider, credential_path
from tollhouse_server.errors import KeyProviderFailed, SecretMissing

from tests.drivers.custody import Rig


def google(rig: Rig) -> ApiKeysProvider:
    """The provider as a deployment has it, at other addresses."""
    return rig.provider_at(ApiKeysAddress(endpoint=rig.simulator.url))


async def keep_credential(rig: Rig, project: str, **changes: str) -> str:
    """Put a new service account's key into Vault as the account's credential; return its JSON."""
    text = json.dumps(await rig.simulator.issue_service_account_key(project) | changes)
    await rig.vault.write_secret(credential_path(rig.account_id), {CREDENTIAL_FIELD: text}, cas=0)
    return text


async def test_a_service_account_issues_finds_and_deletes_keys_that_work(rig: Rig) -> None:
    """By way of the token endpoint; deleting twice is deleting once."""
    await keep_credential(rig, rig.project)
    provider, order = google(rig), rig.order("key-20261121-0a1b2c3d")

    issued = await provider.issue(order)
    found = await provider.find(order)
    assert issued is not None
    works = await rig.probe.check(rig.account_id, issued.secret)
    await provider.retire(order, provider_key=issued.provider_key, secret=None)
    await provider.retire(order, provider_key=issued.provider_key, secret=None)

    assert found == issued
    assert issued.provider_key.endswith("/locations/global/keys/key-20261121-0a1b2c3d")
    assert works == "ACCEPTED"
    assert await provider.find(order) is None
    assert await rig.probe.check(rig.account_id, issued.secret) == "REFUSED"


async def test_a_key_that_came_by_hand_is_found_by_its_secret(rig: Rig) -> None:
    """Nobody has told us its name."""
    await keep_credential(rig, rig.project)
    by_hand = await google(rig).issue(rig.order("by-hand"))
    assert by_hand is not None

    gone = await google(rig).retire(rig.order(""), provider_key="", secret=by_hand.secret)

    assert gone
    assert await rig.live_at_provider() == ["first"]


async def test_keys_are_made_for_gemini_alone(rig: Rig) -> None:
    """A stolen one opens nothing else of the project."""
    await keep_credential(rig, rig.project)
    await rig.simulator.capture_requests(10)

    await google(rig).issue(rig.order("restricted"))

    bodies = [json.loads(seen["body"]) for seen in await rig.simulator.requests() if seen["method"] == "POST"]
    created = [body for body in bodies if "restrictions" in body]
    assert [body["restrictions"] for body in created] == [
        {"apiTargets": [{"service": "generativelanguage.googleapis.com"}]}
    ]


async def test_a_long_running_operation_is_waited_for(rig: Rig) -> None:
    """Google makes keys in seconds, not at once."""
    await keep_credential(rig, rig.project)
    await rig.simulator.set_api_keys(operation_seconds=0.3)
    try:
        issued = await google(rig).issue(rig.order("slow"))
    finally:
        await rig.simulator.set_api_keys(operation_seconds=0)

    assert issued is not None


async def test_a_service_account_of_another_project_is_refused_and_shows_nothing(rig: Rig) -> None:
    """The error names what Google said, never what we have."""
    text = await keep_credential(rig, "a-strangers-project")

    with pytest.raises(KeyProviderFailed) as raised:
        await google(rig).issue(rig.order("refused"))

    assert "403" in str(raised.value) or "Forbidden" in str(raised.value) or "PermissionDenied" in str(raised.value)
    assert json.loads(text)["private_key"] not in f"{raised.value!r}{raised.value.__cause__!r}"


async def test_a_credential_cannot_say_where_tokens_come_from(rig: Rig) -> None:
    """That is the deployment's to say: else an administrator could have the server ask hosts of his choice."""
    await keep_credential(rig, rig.project, token_uri="http://127.0.0.1:9/elsewhere")

    with pytest.raises(KeyProviderFailed, match="settings do not allow"):
        await google(rig).find(rig.order("any"))


async def test_what_is_no_service_account_is_not_quoted(rig: Rig) -> None:
    """It may be a secret of another kind."""
    canary = "canary-4417"
    path = credential_path(rig.account_id)
    await rig.vault.write_secret(path, {CREDENTIAL_FIELD: json.dumps({"private_key": canary})}, cas=0)

    with pytest.raises(KeyProviderFailed) as raised:
        await google(rig).find(rig.order("any"))

    assert canary not in f"{raised.value!r}{raised.value.__cause__!r}{raised.value.__context__!r}"


async def test_without_a_credential_the_path_is_named(rig: Rig) -> None:
    """An operator knows what to do."""
    with pytest.raises(SecretMissing, match=f"custody/{rig.account_id}"):
        await google(rig).find(rig.order("any"))
