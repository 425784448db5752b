"""Google's own client library for the API Keys API drives the simulator, and the keys it makes call Gemini."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from google.api_core import exceptions as google_exceptions
from google.api_core.client_options import ClientOptions
from google.cloud import api_keys_v2
from google.protobuf import field_mask_pb2
from tollhouse_server.simulator.client import RunningSimulator, running_simulator
from tollhouse_server.simulator.keys import key_id

from tests.drivers.simulator import credentials_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
_BODY = {"contents": [{"parts": [{"text": "Hello"}]}]}
_SECONDS = 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(only_known_keys=True) as running:
        yield running


class Keys:
    """The client library's client for one project, off the loop's thread, because it blocks."""

    def __init__(self, simulator: RunningSimulator, account: dict[str, Any]) -> None:
        credentials = credentials_of(account)
        options = ClientOptions(api_endpoint=simulator.url)
        self.client: Any = api_keys_v2.ApiKeysClient(transport="rest", credentials=credentials, client_options=options)
        self.parent = f"projects/{account['project_id']}/locations/global"

    async def create(self, *, key_id: str = "", **fields: Any) -> Any:
        request = api_keys_v2.CreateKeyRequest(parent=self.parent, key_id=key_id, key=api_keys_v2.Key(**fields))
        return await self.done(lambda: self.client.create_key(request=request).result(timeout=_SECONDS))

    async def string_of(self, key: Any) -> str:
        return str((await self.done(lambda: self.client.get_key_string(name=key.name))).key_string)

    async def delete(self, key: Any) -> Any:
        return await self.done(lambda: self.client.delete_key(name=key.name).result(timeout=_SECONDS))

    async def names(self, *, show_deleted: bool = False) -> Any:
        request = api_keys_v2.ListKeysRequest(parent=self.parent, show_deleted=show_deleted, page_size=2)
        return await self.done(lambda: [key.name for key in self.client.list_keys(request=request)])

    @staticmethod
    async def done(call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(call)


@pytest_asyncio.fixture(loop_scope="module")
async def keys(simulator: RunningSimulator) -> Keys:
    account = await simulator.issue_service_account_key(f"project-{uuid.uuid4().hex[:12]}")
    return Keys(simulator, account)


async def status_of(simulator: RunningSimulator, key: str) -> tuple[int, str]:
    """Call Gemini with a key: the HTTP status and the reason of a refusal."""
    url = f"{simulator.url}/v1beta/models/gemini-3.5-flash:generateContent"
    async with (
        aiohttp.ClientSession(headers={"x-goog-api-key": key}) as http,
        http.post(url, json=_BODY) as answer,
    ):
        details = (await answer.json()).get("error", {}).get("details", [])
    return answer.status, "".join(each.get("reason", "") for each in details)


async def test_a_created_key_calls_gemini_at_once_and_a_deleted_one_does_not(
    simulator: RunningSimulator, keys: Keys
) -> None:
    """Create, get the string, call, delete, and be refused as Google refuses."""
    key = await keys.create(key_id="first", display_name="Tollhouse")
    string = await keys.string_of(key)
    created = await status_of(simulator, string)
    deleted = await keys.delete(key)

    [row] = await simulator.calls(key_id=key_id(string))
    assert key.display_name == "Tollhouse"
    assert key.name.endswith("/locations/global/keys/first")
    assert key.name.split("/")[1].isdecimal()
    assert string.startswith("AIza")
    assert len(string) == 39
    assert created == (200, "")
    assert deleted.delete_time is not None
    assert await status_of(simulator, string) == (400, "API_KEY_INVALID")
    assert row.project in keys.parent


async def test_keys_are_listed_in_pages_looked_up_and_undeleted(simulator: RunningSimulator, keys: Keys) -> None:
    """A deleted key is listed on demand and can be had back."""
    made = [await keys.create(display_name=f"key {number}") for number in range(5)]
    string = await keys.string_of(made[0])
    await keys.delete(made[0])
    without, with_deleted = await keys.names(), await keys.names(show_deleted=True)
    await keys.done(lambda: keys.client.undelete_key(request={"name": made[0].name}).result(timeout=_SECONDS))
    found = await keys.done(lambda: keys.client.lookup_key(request={"key_string": string}))

    assert without == [key.name for key in made[1:]]
    assert with_deleted == [key.name for key in made]
    assert found.name == made[0].name
    assert await status_of(simulator, string) == (200, "")


async def test_restrictions_and_the_display_name_change_by_mask(simulator: RunningSimulator, keys: Keys) -> None:
    """A key whose restrictions leave the Gemini API out is blocked with Google's reason."""
    key = await keys.create(display_name="before")
    string = await keys.string_of(key)
    wanted = api_keys_v2.Key(
        name=key.name,
        display_name="after",
        restrictions=api_keys_v2.Restrictions(api_targets=[api_keys_v2.ApiTarget(service="translate.googleapis.com")]),
    )

    renamed = await keys.done(
        lambda: keys.client.update_key(key=wanted, update_mask=field_mask_pb2.FieldMask(paths=["display_name"])).result(
            timeout=_SECONDS
        )
    )
    free = await status_of(simulator, string)
    await keys.done(
        lambda: keys.client.update_key(key=wanted, update_mask=field_mask_pb2.FieldMask(paths=["restrictions"])).result(
            timeout=_SECONDS
        )
    )

    assert renamed.display_name == "after"
    assert renamed.etag != key.etag
    assert free == (200, "")
    assert await status_of(simulator, string) == (403, "API_KEY_SERVICE_BLOCKED")


async def test_refusals_are_the_client_librarys_own_exceptions(simulator: RunningSimulator, keys: Keys) -> None:
    """409 for a taken id, 404 for a key that is not there, 403 for another's project, 400 for a second deletion."""
    key = await keys.create(key_id="taken")
    stranger = Keys(simulator, await simulator.issue_service_account_key("a-strangers-project"))
    stranger.parent = keys.parent

    with pytest.raises(google_exceptions.Conflict):
        await keys.create(key_id="taken")
    with pytest.raises(google_exceptions.NotFound):
        await keys.done(lambda: keys.client.get_key(name=f"{keys.parent}/keys/nowhere"))
    with pytest.raises(google_exceptions.Forbidden):
        await stranger.create()
    with pytest.raises(google_exceptions.BadRequest):
        await keys.create(key_id="Not-An-Id")
    await keys.delete(key)
    with pytest.raises(google_exceptions.BadRequest):
        await keys.delete(key)


async def test_creation_and_deletion_take_effect_after_a_while(simulator: RunningSimulator, keys: Keys) -> None:
    """Google is eventually consistent: a new key is refused at first, a deleted one still accepted."""
    early = await keys.create()
    string = await keys.string_of(early)
    await simulator.set_api_keys(propagation_seconds=3_600, operation_seconds=0.2)
    late_string = await keys.string_of(await keys.create())
    await keys.delete(early)
    await simulator.set_api_keys(propagation_seconds=0, operation_seconds=0)

    assert await status_of(simulator, string) == (200, "")
    assert await status_of(simulator, late_string) == (400, "API_KEY_INVALID")


@pytest.mark.parametrize(("served", "made"), [(True, 1), (False, 0)])
async def test_an_answer_can_be_lost_after_or_before_the_key_was_made(
    simulator: RunningSimulator, keys: Keys, served: bool, made: int
) -> None:
    """A reset by a plan that names CreateKey: the two outcomes that a client cannot tell apart."""
    project = keys.parent.split("/")[1]
    await simulator.add_fault("reset", project=project, method="CreateKey", count=1, served=served)

    with pytest.raises(Exception, match=r"reset by peer|Connection aborted"):
        await keys.create()

    assert len(await keys.names()) == made


async def test_calls_without_a_token_are_unauthenticated(simulator: RunningSimulator) -> None:
    """An API key does not do here."""
    async with (
        aiohttp.ClientSession(headers={"x-goog-api-key": "k"}) as http,
        http.get(f"{simulator.url}/v2/projects/p/locations/global/keys") as answer,
    ):
        error = (await answer.json())["error"]

    assert (error["code"], error["status"]) == (401, "UNAUTHENTICATED")
    assert error["details"][0]["reason"] == "CREDENTIALS_MISSING"
