"""Vertex AI's client against the simulator: its paths, its tokens, its ways to embed, and what is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tollhouse_server.ledger.ledger import new_attempt_id
from tollhouse_server.simulator.client import RunningSimulator, running_simulator
from tollhouse_server.upstream.http import open_transport
from tollhouse_server.upstream.protocol import Destination, Method, NotSent, Refused, UpstreamCall, UpstreamKind
from tollhouse_server.upstream.tokens import AccessTokens
from tollhouse_server.upstream.upstreams import Upstreams, open_upstreams
from tollhouse_server.upstream.vertex import VertexUpstream

from tests.drivers.wire import Wire, answer, answering, proxying, serving

PROJECT = "acme-models"
CONTENTS = [{"parts": [{"text": "How long is the bridge?"}], "role": "user"}]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[RunningSimulator]:
    """One simulator for all."""
    async with running_simulator() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def simulator(running: RunningSimulator) -> RunningSimulator:
    """The simulator, which remembers what this test sends."""
    await running.clear_faults()
    await running.capture_requests(0)
    await running.capture_requests(100)
    return running


@pytest_asyncio.fixture(loop_scope="module")
async def upstreams(simulator: RunningSimulator) -> AsyncIterator[Upstreams]:
    """A process's clients; the simulator's token server is allowed."""
    async with open_upstreams(token_urls=[f"{simulator.url}/token"]) as upstreams:
        yield upstreams


@pytest_asyncio.fixture(loop_scope="module")
async def key(simulator: RunningSimulator) -> str:
    """A service account's key, as Vault keeps it."""
    return await new_key(simulator)


async def new_key(simulator: RunningSimulator, **settings: Any) -> str:
    """Return the JSON of a new key."""
    return json.dumps(await simulator.issue_service_account_key(PROJECT, **settings))


def private_key_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> str:
    """Return a private key as PEM."""
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock).decode()


def call_to(url: str, key: str, method: Method = Method.GENERATE, **changes: Any) -> UpstreamCall:
    """Build a call."""
    model = changes.pop("model", "gemini-3.5-flash")
    egress_url = changes.pop("egress_url", "")
    values: dict[str, Any] = {
        "attempt_id": new_attempt_id(),
        "destination": Destination(
            kind=UpstreamKind.VERTEX,
            base_url=url,
            api_version="v1beta1",
            model=model,
            project=PROJECT,
            region="europe-west4",
            egress_url=egress_url,
        ),
        "method": method,
        "body": json.dumps(changes.pop("body", {"contents": CONTENTS})).encode(),
        "timeout_seconds": 5.0,
        "key": key,
    }
    return UpstreamCall(**(values | changes))


async def test_a_call_goes_to_the_project_and_region_with_a_token(
    simulator: RunningSimulator, upstreams: Upstreams, key: str
) -> None:
    """The key itself never leaves but as a signature."""
    call = call_to(simulator.url, key)

    answered = await upstreams.call(call)

    assert answered["candidates"][0]["finishReason"] == "STOP"
    (request,) = await simulator.requests()
    place = f"/v1beta1/projects/{PROJECT}/locations/europe-west4/publishers/google/models/gemini-3.5-flash"
    assert request["path"] == f"{place}:generateContent"
    assert dict(request["headers"])["x-tollhouse-attempt-id"] == str(call.attempt_id)
    assert "x-goog-api-key" not in dict(request["headers"])
    (served,) = await simulator.calls(attempt_id=str(call.attempt_id))
    assert served.project == PROJECT


async def test_a_stream_yields_chunks(simulator: RunningSimulator, upstreams: Upstreams, key: str) -> None:
    """Server-sent events as on the Developer API."""
    chunks = [chunk async for chunk in upstreams.stream(call_to(simulator.url, key, Method.STREAM))]

    assert len(chunks) > 1
    assert chunks[-1]["usageMetadata"]["totalTokenCount"] > 0


async def test_tokens_are_counted(simulator: RunningSimulator, upstreams: Upstreams, key: str) -> None:
    """Also for a body in the Developer API's wrapper."""
    plain = {"contents": CONTENTS, "systemInstruction": {"parts": [{"text": "Be brief."}]}}
    wrapped = {"generateContentRequest": {"model": "models/gemini-3.5-flash", **plain}}

    counts = [
        await upstreams.call(call_to(simulator.url, key, Method.COUNT_TOKENS, body=body)) for body in (plain, wrapped)
    ]

    assert counts[0]["totalTokens"] == counts[1]["totalTokens"] > 6


@pytest.mark.parametrize(("model", "length"), [("gemini-embedding-001", 8), ("gemini-embedding-2", 8)])
@pytest.mark.parametrize("count", [1, 3])
async def test_embeddings_have_one_shape(
    simulator: RunningSimulator, upstreams: Upstreams, key: str, model: str, length: int, count: int
) -> None:
    """Whatever form Vertex wants, callers ask and read batchEmbedContents."""
    requests = [{"content": CONTENTS[0], "outputDimensionality": length}] * count

    answered = await upstreams.call(call_to(simulator.url, key, Method.EMBED, model=model, body={"requests": requests}))

    assert [len(embedding["values"]) for embedding in answered["embeddings"]] == [length] * count
    assert answered["usageMetadata"]["promptTokenCount"] >= 6 * count


async def test_many_calls_share_one_exchange(simulator: RunningSimulator, upstreams: Upstreams, key: str) -> None:
    """A thousand calls that find no token ask for one."""
    await simulator.add_fault("slow", method="token", delay_seconds=0.05)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(upstreams.call(call_to(simulator.url, key)))

    bearers = {dict(request["headers"])["authorization"] for request in await simulator.requests()}
    assert len(bearers) == 1


async def test_a_key_that_is_no_json_is_the_token_itself(upstreams: Upstreams) -> None:
    """A token that something else renews, or a relay's own."""
    async with answering(answer(b"{}")) as server:
        await upstreams.call(call_to(server.url, "a-token\n"))

    assert server.seen[0].headers["authorization"] == "Bearer a-token"


async def test_a_disabled_key_is_refused_like_any_other(
    simulator: RunningSimulator, upstreams: Upstreams, key: str
) -> None:
    """The token server says invalid_grant; whoever quarantines keys reads 401."""
    account = json.loads(key)
    await simulator.change_service_account(account["client_email"], disable_key=account["private_key_id"])

    with pytest.raises(Refused) as raised:
        await upstreams.call(call_to(simulator.url, key))

    assert raised.value.http_status == 401
    assert raised.value.error["status"] == "UNAUTHENTICATED"
    assert "invalid_grant" in raised.value.error["message"]


@pytest.mark.parametrize("method", [Method.GENERATE, Method.STREAM])
async def test_a_revoked_token_is_replaced_by_a_new_one(
    simulator: RunningSimulator, upstreams: Upstreams, key: str, method: Method
) -> None:
    """The key is in order: it must not be put away for a token's end."""

    served = await simulator.count_calls()

    async def ask() -> None:
        call = call_to(simulator.url, key, method)
        if method is Method.STREAM:
            _ = [chunk async for chunk in upstreams.stream(call)]
        else:
            await upstreams.call(call)

    await ask()
    await simulator.revoke_tokens()

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(ask())

    assert await simulator.count_calls() == served + 6


async def test_an_account_without_rights_is_refused_after_one_exchange(
    simulator: RunningSimulator, upstreams: Upstreams
) -> None:
    """A new token of the same account would do no better."""
    key = json.dumps(await simulator.issue_service_account_key("another-project"))

    with pytest.raises(Refused) as raised:
        await upstreams.call(call_to(simulator.url, key))

    assert raised.value.http_status == 403
    assert len(await simulator.requests()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"token_uri": "http://127.0.0.1:9/steal"},
        {"type": "authorized_user"},
        {"private_key": "no key"},
        {"private_key": private_key_of(ec.generate_private_key(ec.SECP256R1()))},
        {"private_key": private_key_of(rsa.generate_private_key(65537, 2048), password=b"secret")},
        {"client_email": None},
    ],
)
async def test_a_key_that_cannot_be_used_is_shown_to_nobody(
    simulator: RunningSimulator, upstreams: Upstreams, key: str, change: dict[str, Any]
) -> None:
    """Only token servers that settings allow see a signature; the refusal quotes nothing of the key."""
    broken = json.dumps(json.loads(key) | change)

    with pytest.raises(Refused) as raised:
        await upstreams.call(call_to(simulator.url, broken))

    assert raised.value.http_status == 401
    assert "steal" not in str(raised.value.body)
    assert await simulator.requests() == []


async def test_a_half_key_is_refused(simulator: RunningSimulator, upstreams: Upstreams) -> None:
    """JSON that was cut off on its way into Vault."""
    with pytest.raises(Refused):
        await upstreams.call(call_to(simulator.url, '{"type": "service_account", '))


@pytest.mark.parametrize("kind", ["503", "429", "reset", "garbage", "500"])
async def test_a_token_server_in_trouble_is_not_sent(
    simulator: RunningSimulator, upstreams: Upstreams, key: str, kind: str
) -> None:
    """The model was asked nothing; the next call asks for a token again."""
    await simulator.add_fault(kind, method="token", count=1)

    with pytest.raises(NotSent):
        await upstreams.call(call_to(simulator.url, key))

    assert "candidates" in await upstreams.call(call_to(simulator.url, key))


async def test_a_token_server_that_hangs_is_not_sent_in_time(
    simulator: RunningSimulator, upstreams: Upstreams, key: str
) -> None:
    """The call's own time is the bound."""
    await simulator.add_fault("hang", method="token", count=1)

    with pytest.raises(NotSent, match="in time"):
        await upstreams.call(call_to(simulator.url, key, timeout_seconds=0.1))


async def test_tokens_are_fetched_through_the_egress_proxy(
    simulator: RunningSimulator, upstreams: Upstreams, key: str
) -> None:
    """Where Google is not reachable directly, its token server is neither."""
    async with proxying() as proxy:
        await upstreams.call(call_to(simulator.url, key, egress_url=proxy.url))

    assert proxy.seen[0].target == f"{simulator.url}/token"


async def test_calls_leave_through_the_egress_proxy(upstreams: Upstreams) -> None:
    """As on the Developer API."""
    async with proxying() as proxy, answering(answer(b"{}")) as server:
        await upstreams.call(call_to(server.url, "a-token", egress_url=proxy.url))

    assert proxy.seen[0].target.startswith(f"{server.url}/v1beta1/projects/")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_token_is_renewed_before_it_ends_and_nobody_waits_for_it(simulator: RunningSimulator, key: str) -> None:
    """Calls go on with the old token while the new one is fetched, even if that fails at first."""
    clock, given = Clock(), 0
    fails = False
    exchanged = asyncio.Event()

    async def script(wire: Wire) -> None:
        nonlocal given
        while await wire.request():
            given += 1
            body = json.dumps({"access_token": f"token-{given}", "expires_in": 3600}).encode()
            await wire.say(answer(status="503 No") if fails else answer(body))
            exchanged.set()

    async with serving(script) as server, open_transport() as transport:
        account = json.dumps(json.loads(key) | {"token_uri": f"{server.url}/token"})
        tokens = AccessTokens(transport, token_urls=[f"{server.url}/token"], clock=clock)

        async def bearer() -> str:
            return await tokens.bearer(account, egress_url="", timeout_seconds=5.0)

        async def settled() -> None:
            await exchanged.wait()
            exchanged.clear()
            await asyncio.sleep(0.02)

        assert [await bearer() for _ in range(3)] == ["token-1"] * 3
        await settled()
        clock.now += 3600 - 299
        fails = True
        assert await bearer() == "token-1"
        await settled()
        assert await bearer() == "token-1"
        await asyncio.sleep(0.1)
        assert given == 2
        fails = False
        clock.now += 6
        assert await bearer() == "token-1"
        await settled()
        assert (await bearer(), given) == ("token-3", 3)
        clock.now += 3600
        assert await bearer() == "token-4"
        await tokens.close()


async def test_a_caller_who_gives_up_leaves_the_exchange_to_the_others(simulator: RunningSimulator, key: str) -> None:
    """One cancelled call does not fail all that wait for the same token."""
    await simulator.add_fault("slow", method="token", delay_seconds=0.1, count=1)

    async with open_transport() as transport:
        upstream = VertexUpstream(transport, AccessTokens(transport, token_urls=[f"{simulator.url}/token"]))
        first = asyncio.create_task(upstream.call(call_to(simulator.url, key)))
        second = asyncio.create_task(upstream.call(call_to(simulator.url, key)))
        await asyncio.sleep(0.02)
        first.cancel()

        assert "candidates" in await second
