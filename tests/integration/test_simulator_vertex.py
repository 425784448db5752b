"""The real google-genai in Vertex mode drives the simulator with a service account's own credentials."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from google import genai
from google.auth import exceptions as auth_exceptions
from google.auth.transport.requests import Request as AuthRequest
from google.genai import errors as genai_errors
from google.genai import types
from tollhouse_server.simulator.client import RunningSimulator, running_simulator
from tollhouse_server.simulator.keys import key_id

from tests.drivers.simulator import Gemini, assert_adds_up, credentials_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLASH = "gemini-3.5-flash"
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_RECORDED = Path(__file__).parents[1] / "recorded" / "gemini_traffic.jsonl.gz"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(only_known_keys=True) as running:
        yield running


@pytest.fixture
def project() -> str:
    """A project of the test's own, so that tests share one simulator without meeting."""
    return f"project-{uuid.uuid4().hex[:12]}"


@pytest_asyncio.fixture(loop_scope="module")
async def account(simulator: RunningSimulator, project: str) -> dict[str, Any]:
    return await simulator.issue_service_account_key(project)


def vertex(simulator: RunningSimulator, account: dict[str, Any], region: str = "europe-west4", **more: str) -> Gemini:
    credentials = credentials_of(account, _SCOPES)
    options = types.HttpOptions(base_url=simulator.url, retry_options=types.HttpRetryOptions(attempts=1))
    return genai.Client(
        vertexai=True,
        project=more.get("project", account["project_id"]),
        location=region,
        credentials=credentials,
        http_options=options,
    ).aio


async def test_a_unary_call_is_logged_with_project_region_and_key(
    simulator: RunningSimulator, account: dict[str, Any], project: str
) -> None:
    """The key of a Vertex call is the service account's, whatever token it came with."""
    async with vertex(simulator, account) as client:
        response = await client.models.generate_content(model=FLASH, contents="How deep is the toll road?")

    [row] = await simulator.calls(project=project, region="europe-west4")
    assert_adds_up(response.usage_metadata)
    assert response.usage_metadata.traffic_type == "ON_DEMAND"
    assert response.create_time is not None
    assert (row.key_id, row.region) == (key_id(account["private_key_id"]), "europe-west4")
    assert row.usage["totalTokenCount"] == response.usage_metadata.total_token_count
    assert await simulator.count_calls(project=project, region="us-central1") == 0


async def test_streams_counts_and_model_listings_answer_on_vertex_paths(
    simulator: RunningSimulator, account: dict[str, Any]
) -> None:
    """Each of them by the path that the SDK takes on Vertex."""
    async with vertex(simulator, account, "global") as client:
        stream = await client.models.generate_content_stream(model=FLASH, contents="Count. [[tokens:100]]")
        chunks = [chunk async for chunk in stream]
        counted = await client.models.count_tokens(model=FLASH, contents="Hello, world!")
        pager = await client.models.list(config={"query_base": True})
        named = [model.name async for model in pager]
        shown = await client.models.get(model=FLASH)

    assert len(chunks) > 3
    assert chunks[-1].usage_metadata.candidates_token_count == 100
    assert counted.total_tokens == 4
    assert f"publishers/google/models/{FLASH}" in named
    assert shown.name.endswith(FLASH)


@pytest.mark.parametrize(
    ("model", "texts", "method"),
    [
        ("gemini-embedding-2", ["hello toll"], "embedContent"),
        ("gemini-embedding-001", ["hello toll", "goodbye"], "batchEmbedContents"),
        ("text-embedding-005", ["hello toll", "goodbye"], "predict"),
    ],
)
async def test_embeddings_take_the_path_of_their_generation(
    simulator: RunningSimulator, account: dict[str, Any], project: str, model: str, texts: list[str], method: str
) -> None:
    """Older models are asked through predict, Gemini's own through embedContent or in a batch."""
    config = types.EmbedContentConfig(output_dimensionality=64, task_type="RETRIEVAL_QUERY")
    async with vertex(simulator, account) as client:
        response = await client.models.embed_content(model=model, contents=texts, config=config)

    [row] = await simulator.calls(project=project)
    assert [len(each.values) for each in response.embeddings] == [64] * len(texts)
    assert row.method == method
    assert row.usage["promptTokenCount"] == (3 if len(texts) == 1 else 5)


async def test_an_unknown_model_is_named_as_a_publisher_model(
    simulator: RunningSimulator, account: dict[str, Any]
) -> None:
    """Vertex's 404 names project, region and model."""
    async with vertex(simulator, account) as client:
        with pytest.raises(genai_errors.ClientError) as refused:
            await client.models.generate_content(model="gemini-0", contents="Hello")

    assert refused.value.code == 404
    assert f"projects/{account['project_id']}/locations/europe-west4/publishers/google/models/gemini-0" in str(
        refused.value
    )


async def test_a_token_is_refused_once_it_has_expired_or_was_revoked(simulator: RunningSimulator, project: str) -> None:
    """401 on an old token; the SDK's own refresh gets a new one for the next client."""
    account = await simulator.issue_service_account_key(project, token_lifetime_seconds=3_000)
    async with vertex(simulator, account) as client:
        await client.models.generate_content(model=FLASH, contents="Hello")
        await simulator.revoke_tokens(account["client_email"])
        with pytest.raises(genai_errors.ClientError) as revoked:
            await client.models.generate_content(model=FLASH, contents="Hello")
    async with vertex(simulator, account) as client:
        await client.models.generate_content(model=FLASH, contents="Hello")

    assert (revoked.value.code, revoked.value.status) == (401, "UNAUTHENTICATED")
    assert await simulator.count_calls(project=project) == 2


async def test_a_short_lifetime_ends_a_token(simulator: RunningSimulator, project: str) -> None:
    """A lifetime of nothing is over at once."""
    account = await simulator.issue_service_account_key(project, token_lifetime_seconds=0)

    async with vertex(simulator, account) as client:
        with pytest.raises(genai_errors.ClientError) as refused:
            await client.models.generate_content(model=FLASH, contents="Hello")

    assert refused.value.code == 401


async def test_another_project_needs_rights_in_it(simulator: RunningSimulator, project: str) -> None:
    """403 outside the account's projects, an answer in those it was given."""
    account = await simulator.issue_service_account_key(project, projects=["second-project"])

    async with vertex(simulator, account, project="third-project") as stranger:
        with pytest.raises(genai_errors.ClientError) as refused:
            await stranger.models.generate_content(model=FLASH, contents="Hello")
    async with vertex(simulator, account, project="second-project") as friend:
        await friend.models.generate_content(model=FLASH, contents="Hello")

    assert (refused.value.code, refused.value.status) == (403, "PERMISSION_DENIED")
    assert await simulator.count_calls(project="second-project") == 1


def refresh(account: dict[str, Any], scopes: list[str] | None = None) -> str:
    credentials = credentials_of(account, _SCOPES if scopes is None else scopes)
    credentials.refresh(AuthRequest())  # type: ignore[no-untyped-call]
    return str(credentials.token)


async def test_the_token_endpoint_refuses_unknown_disabled_and_badly_signed(
    simulator: RunningSimulator, account: dict[str, Any], project: str
) -> None:
    """invalid_grant for each, whatever the assertion claims."""
    other = await simulator.issue_service_account_key(project, email=account["client_email"])

    assert refresh(account).startswith("ya29.")
    with pytest.raises(auth_exceptions.RefreshError, match="account not found"):
        refresh(account | {"client_email": "nobody@nowhere"})
    with pytest.raises(auth_exceptions.RefreshError, match="Invalid JWT Signature"):
        refresh(account | {"private_key_id": other["private_key_id"]})
    with pytest.raises(auth_exceptions.RefreshError, match="invalid_scope"):
        refresh(account, scopes=[])
    await simulator.change_service_account(account["client_email"], disable_key=account["private_key_id"])
    with pytest.raises(auth_exceptions.RefreshError, match="Invalid JWT Signature"):
        refresh(account)
    assert refresh(other)
    await simulator.change_service_account(account["client_email"], enabled=False)
    with pytest.raises(auth_exceptions.RefreshError, match="account not found"):
        refresh(other)


async def test_the_token_endpoint_fails_only_by_plans_that_name_it(
    simulator: RunningSimulator, account: dict[str, Any], project: str
) -> None:
    """A region's 503 leaves tokens alone; a plan for the method `token` hits them."""
    await simulator.add_fault("503", project=project)
    assert refresh(account)

    await simulator.add_fault("400", project=project, method="token")

    with pytest.raises(auth_exceptions.RefreshError, match="invalid_argument"):
        refresh(account)


async def test_service_accounts_outlive_a_restart() -> None:
    """Credentials that somebody stored go on working; of the key pair only the public half was kept."""
    async with running_simulator() as simulator:
        account = await simulator.issue_service_account_key("kept")
        await simulator.restart()

        token = refresh(account)
        kept = simulator.log.with_name(f"{simulator.log.name}.accounts").read_text()

    assert token.startswith("ya29.")
    assert "PRIVATE" not in kept


def recorded_on_vertex() -> Iterator[dict[str, Any]]:
    for line in gzip.decompress(_RECORDED.read_bytes()).splitlines():
        entry = json.loads(line)
        if "aiplatform" in entry["host"] and entry["status"] == 200 and isinstance(entry["response"], dict):
            yield entry


async def test_billable_characters_are_counted_as_recorded(simulator: RunningSimulator) -> None:
    """White space is not billed; the recorded count is the real API's."""
    account = await simulator.issue_service_account_key("P")
    [recorded] = [each for each in recorded_on_vertex() if each["response"].get("totalBillableCharacters") == 47]

    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {refresh(account)}"}) as http,
        http.post(simulator.url + recorded["path"], json=recorded["request"]) as answer,
    ):
        given = await answer.json()

    assert set(given) == set(recorded["response"])
    assert given["totalBillableCharacters"] == 47


async def test_answers_have_the_fields_of_the_recorded_ones(simulator: RunningSimulator) -> None:
    """Every field of a recorded Vertex answer of a plain prompt is in ours, apart from those named here."""
    not_simulated = {"avgLogprobs", "logprobsResult", "groundingMetadata"}
    account = await simulator.issue_service_account_key("P")
    token = refresh(account)
    checked = 0
    for entry in recorded_on_vertex():
        if "contents" not in entry["request"] or "candidates" not in entry["response"]:
            continue
        async with (
            aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as http,
            http.post(simulator.url + entry["path"], json=entry["request"]) as answer,
        ):
            given = await answer.json()
        recorded = entry["response"]
        assert set(recorded) <= set(given), entry["path"]
        assert set(recorded["candidates"][0]) - not_simulated - {"finishMessage"} <= set(given["candidates"][0])
        assert set(recorded["usageMetadata"]) - {"thoughtsTokenCount"} <= set(given["usageMetadata"])
        checked += 1

    assert checked > 20
