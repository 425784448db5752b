"""Quotas per project, the simulator's own capacity, and regions that go dead."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from tollhouse_server.simulator.client import RunningSimulator, SimulatorRefused, running_simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
_FLASH = "gemini-3.5-flash"
_IMAGES = "gemini-2.5-flash-image"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator() as running:
        yield running


@dataclass(frozen=True)
class Project:
    """A project of the test's own with two keys."""

    simulator: RunningSimulator
    http: aiohttp.ClientSession
    name: str

    async def post(self, text: str = "Hello", *, model: str = _FLASH, key: int = 0, url: str = "") -> dict[str, Any]:
        """Call with one of the keys and give the error, or nothing."""
        address = f"{url or self.simulator.url}/v1beta/models/{model}:generateContent"
        body = {"contents": [{"parts": [{"text": text}]}]}
        async with self.http.post(address, json=body, headers={"x-goog-api-key": f"{self.name}-{key}"}) as answer:
            return dict((await answer.json()).get("error", {}))

    async def vertex(self, region: str) -> int:
        """Call on a Vertex path and give the status."""
        path = f"/v1beta1/projects/{self.name}/locations/{region}/publishers/google/models/{_FLASH}:generateContent"
        body = {"contents": [{"parts": [{"text": "Hello"}], "role": "user"}]}
        headers = {"authorization": "Bearer anyone"}
        async with self.http.post(self.simulator.url + path, json=body, headers=headers) as answer:
            return answer.status


@pytest_asyncio.fixture(loop_scope="module")
async def project(simulator: RunningSimulator) -> AsyncIterator[Project]:
    name = f"project-{uuid.uuid4().hex[:12]}"
    for number in range(2):
        await simulator.accept_key(f"{name}-{number}", project=name)
    async with aiohttp.ClientSession() as http:
        yield Project(simulator, http, name)


def violations_of(error: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Give quota id, model and value of each violation of a 429."""
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    details = {each["@type"].rpartition(".")[2]: each for each in error["details"]}
    assert set(details) == {"Help", "QuotaFailure", "RetryInfo"}
    assert details["RetryInfo"]["retryDelay"].endswith("s")
    return [
        (each["quotaId"], each["quotaDimensions"]["model"], each["quotaValue"])
        for each in details["QuotaFailure"]["violations"]
    ]


async def test_the_keys_of_a_project_share_its_requests_per_minute(
    simulator: RunningSimulator, project: Project
) -> None:
    """A second key brings no second quota, and what was refused was not served."""
    await simulator.set_quota(project.name, model=_FLASH, requests_per_minute=2)

    first = [await project.post(key=0), await project.post(key=1)]
    refused = await project.post(key=1)

    assert first == [{}, {}]
    assert violations_of(refused) == [("GenerateRequestsPerMinutePerProjectPerModel", _FLASH, "2")]
    assert await project.post(model="gemini-2.5-flash") == {}
    assert await simulator.count_calls(project=project.name) == 3


@pytest.mark.parametrize(
    ("limits", "model", "quota_id", "calls"),
    [
        ({"input_tokens_per_minute": 250}, _FLASH, "GenerateContentInputTokensPerModelPerMinute", 2),
        ({"requests_per_day": 3}, _FLASH, "GenerateRequestsPerDayPerProjectPerModel", 3),
        ({"images_per_minute": 1}, _IMAGES, "GenerateImagesPerMinutePerProjectPerModel", 1),
        (
            {"spend_nanos_per_10_minutes": 150_000, "nanos_per_input_token": 1_000},
            _FLASH,
            "GenerateContentSpendPer10MinutesPerProject",
            2,
        ),
    ],
)
async def test_each_metric_has_its_limit_over_all_models(
    simulator: RunningSimulator, project: Project, limits: dict[str, int], model: str, quota_id: str, calls: int
) -> None:
    """Exactly so many calls of 100 tokens fit; spend refuses the call after the one that passed the limit."""
    await simulator.set_quota(project.name, **limits)

    served = [await project.post("x" * 400, model=model) for _ in range(calls)]
    refused = await project.post("x" * 400, model=model)

    assert served == [{}] * calls
    assert [each[0] for each in violations_of(refused)] == [quota_id]
    assert await simulator.count_calls(project=project.name) == calls


async def test_room_comes_back_when_retry_info_says(simulator: RunningSimulator, project: Project) -> None:
    """After the delay the same call is served."""
    await simulator.set_quota(project.name, requests_per_minute=1, minute_seconds=0.4)
    await project.post()
    refused = await project.post()
    delay = float(refused["details"][-1]["retryDelay"].removesuffix("s"))

    await asyncio.sleep(delay)

    assert 0 < delay <= 0.4
    assert await project.post() == {}


async def test_a_lowered_limit_counts_what_was_used_before(simulator: RunningSimulator, project: Project) -> None:
    """Setting a quota again keeps its count; clearing forgets it."""
    await simulator.set_quota(project.name, requests_per_minute=10)
    for _ in range(3):
        await project.post()
    await simulator.set_quota(project.name, requests_per_minute=3)
    refused = await project.post()
    await simulator.clear_quotas(project.name)

    assert refused["code"] == 429
    assert await project.post() == {}


async def test_a_quota_of_one_region_leaves_the_others_alone(simulator: RunningSimulator, project: Project) -> None:
    """Vertex limits by region."""
    await simulator.set_quota(project.name, region="europe-west4", requests_per_minute=1)

    statuses = [await project.vertex(region) for region in ("europe-west4", "europe-west4", "us-central1")]

    assert statuses == [200, 429, 200]


async def test_a_quota_that_cannot_be_read_is_refused(simulator: RunningSimulator) -> None:
    """The admin path names what is wrong."""
    with pytest.raises(SimulatorRefused, match="requests_per_minute"):
        await simulator.set_quota("p", requests_per_minute=-1)
    with pytest.raises(SimulatorRefused, match="unexpected keyword"):
        await simulator.set_quota("p", request_per_minute=1)


async def test_a_fault_plan_of_a_region_hits_that_region_alone(simulator: RunningSimulator, project: Project) -> None:
    """The same project goes on in another region, and the log tells them apart."""
    await simulator.add_fault("503", project=project.name, region="us-central1")

    statuses = [await project.vertex(region) for region in ("us-central1", "europe-west4")]

    assert statuses == [503, 200]
    assert await simulator.count_calls(project=project.name, region="europe-west4") == 1
    assert await simulator.count_calls(project=project.name, region="us-central1") == 0


async def test_a_closed_port_refuses_and_an_opened_one_answers_for_its_region(
    simulator: RunningSimulator, project: Project
) -> None:
    """A dead region: connections are refused, those in use are aborted, and it comes back at its address."""
    port = await simulator.open_port("asia-east1")
    before = await project.post(url=port["url"])
    await simulator.add_fault("hang", project=project.name, count=1)
    hanging = asyncio.create_task(project.post(url=port["url"]))
    async with asyncio.timeout(5):
        while await simulator.count_calls(project=project.name) < 2:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)

    await simulator.close_port(port["port"])
    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(hanging, 5)
    with pytest.raises(aiohttp.ClientConnectorError):
        await project.post(url=port["url"])
    elsewhere = await project.post()
    await simulator.open_port("asia-east1", port["port"])

    assert before == elsewhere == {}
    assert await project.post(url=port["url"]) == {}
    regions = [row.region for row in await simulator.calls(project=project.name)]
    assert regions == ["asia-east1", "asia-east1", "global", "asia-east1"]


async def test_more_calls_at_a_time_than_the_capacity_get_a_503() -> None:
    """A hanging call holds its place; the next one is refused and not served."""
    async with running_simulator(faults=[{"kind": "hang", "count": 1}]) as simulator, aiohttp.ClientSession() as http:
        project = Project(simulator, http, "crowded")
        await simulator.set_capacity(concurrent_calls=1)
        hanging = asyncio.create_task(project.post())
        async with asyncio.timeout(5):
            while await simulator.count_calls() == 0:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

        refused = await project.post()
        hanging.cancel()
        await asyncio.wait([hanging])
        async with asyncio.timeout(5):
            while (await simulator.capacity())[0]["running"]:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

        assert refused["code"] == 503
        assert await project.post() == {}
        assert await simulator.count_calls() == 2


async def test_calls_beyond_the_rate_are_refused_or_wait_for_their_turn() -> None:
    """Of a burst only the first is taken; with patience all are, one after another."""
    async with running_simulator() as simulator, aiohttp.ClientSession() as http:
        project = Project(simulator, http, "fast")
        clock = asyncio.get_running_loop().time
        await simulator.set_capacity(requests_per_second=10, burst_seconds=0)
        burst = await asyncio.gather(*(project.post() for _ in range(5)))
        await simulator.set_capacity(requests_per_second=20, wait_seconds=5)
        began = clock()
        patient = await asyncio.gather(*(project.post() for _ in range(9)))
        took = clock() - began
        await simulator.clear_capacity()

    assert sorted(each.get("code", 200) for each in burst)[0] == 200
    assert [each["code"] for each in burst if each].count(503) >= 3
    assert patient == [{}] * 9
    assert took >= 0.35


async def test_a_log_of_an_earlier_version_gets_the_new_columns(tmp_path: Path) -> None:
    """Old rows stay, without a region; new ones have theirs."""
    log = tmp_path / "calls.sqlite"
    async with running_simulator(log=log) as simulator, aiohttp.ClientSession() as http:
        await Project(simulator, http, "old").post()
    with sqlite3.connect(log) as connection:
        connection.execute("ALTER TABLE served_call DROP COLUMN region")
    connection.close()

    async with running_simulator(log=log) as simulator, aiohttp.ClientSession() as http:
        await Project(simulator, http, "new").post()
        rows = await simulator.calls()

    assert [row.region for row in rows] == ["", "global"]
