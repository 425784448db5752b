"""A calling service, the real server, the simulator."""

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse.v1 import generation_pb2_grpc as gg

from tests.drivers.callers import bearer, details_of, generation_stub, prompt, reason_of, text_of
from tests.drivers.stack import RunningStack

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc33"
    "0000000049454e44ae426082"
)
COLOUR_SCHEMA = c.Schema(
    type="OBJECT", properties={"colour": c.Schema(type="STRING"), "wheels": c.Schema(type="INTEGER")}
)
WEATHER = c.Tool(
    function_declarations=[
        c.FunctionDeclaration(
            name="get_weather",
            description="Weather of a city",
            parameters=c.Schema(type="OBJECT", properties={"city": c.Schema(type="STRING")}, required=["city"]),
        )
    ]
)


def image_question() -> g.GenerateContentRequest:
    """Build a question about an inline image."""
    request = prompt("What is in this picture?")
    request.contents[0].parts.append(c.Part(inline_data=c.Blob(mime_type="image/png", data=PNG)))
    return request


def drawing() -> g.GenerateContentRequest:
    """Build a request for an image."""
    return prompt("A red toll house", tier="flash-image")


REQUESTS: dict[str, Callable[[], g.GenerateContentRequest]] = {
    "text": lambda: prompt("Hello"),
    "image in": image_question,
    "image out": drawing,
    "tools": lambda: prompt("What is the weather in Oslo?", tools=[WEATHER]),
    "structured output": lambda: prompt(
        "Describe a car",
        generation_config=c.GenerationConfig(response_mime_type="application/json", response_schema=COLOUR_SCHEMA),
    ),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_kind_of_call_answers_with_its_price(running_stack: RunningStack, kind: str) -> None:
    """Unary: content of the right sort, usage, a cost that is the sum of its lines, and a receipt."""
    with generation_stub(running_stack) as stub:
        response = stub.GenerateContent(REQUESTS[kind](), metadata=bearer(running_stack.demo_api_key), timeout=20)

    outcome = response.outcome
    cost_nanos = outcome.cost.units * 10**9 + outcome.cost.nanos
    assert response.candidates[0].finish_reason == "STOP"
    assert outcome.usage.total_tokens == response.usage_metadata.total_token_count
    assert cost_nanos == sum(line.cost_nanos for line in outcome.receipt.lines)
    assert cost_nanos > 0
    assert outcome.receipt.project == "tenants/demo/departments/research/projects/assistant"
    assert has_expected_content(kind, response.candidates[0].content)


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_kind_of_call_streams(running_stack: RunningStack, kind: str) -> None:
    """Streaming: Gemini's chunks first, then one message with the outcome alone."""
    with generation_stub(running_stack) as stub:
        chunks = list(
            stub.StreamGenerateContent(REQUESTS[kind](), metadata=bearer(running_stack.demo_api_key), timeout=20)
        )

    *content, last = chunks
    parts = [part for chunk in content for candidate in chunk.candidates for part in candidate.content.parts]
    assert not any(chunk.HasField("outcome") for chunk in content)
    assert last.HasField("outcome")
    assert not last.candidates
    assert last.outcome.usage.total_tokens == content[-1].usage_metadata.total_token_count
    assert has_expected_content(kind, c.Content(parts=parts))


def has_expected_content(kind: str, content: c.Content) -> bool:
    """Tell whether an answer has what its kind of request asks for."""
    match kind:
        case "image out":
            return any(part.inline_data.data.startswith(b"\x89PNG") for part in content.parts)
        case "tools":
            return any("city" in part.function_call.args for part in content.parts if part.HasField("function_call"))
        case "structured output":
            return "colour" in "".join(part.text for part in content.parts)
        case _:
            return any(part.text for part in content.parts)


def test_embeddings_and_token_counts_answer(running_stack: RunningStack) -> None:
    """One vector for each content; counting is free and on record."""
    items = [g.EmbedContentItem(content=c.Content(parts=[c.Part(text=text)])) for text in ("toll", "house")]
    counted = g.CountTokensRequest(tier="flash", contents=prompt("Hello there").contents)
    with generation_stub(running_stack) as stub:
        metadata = bearer(running_stack.demo_api_key)
        embedded = stub.EmbedContent(g.EmbedContentRequest(tier="embedding", requests=items), metadata=metadata)
        tokens = stub.CountTokens(counted, metadata=metadata)

    assert len(embedded.embeddings) == 2
    assert all(len(embedding.values) > 100 for embedding in embedded.embeddings)
    assert embedded.outcome.usage.prompt_tokens > 0
    assert tokens.total_tokens > 0
    assert (tokens.outcome.cost.units, tokens.outcome.cost.nanos) == (0, 0)


def test_ten_lines_of_python_are_enough(running_stack: RunningStack) -> None:
    """The README's example."""
    with grpc.insecure_channel(running_stack.grpc) as channel:
        stub = gg.GenerationServiceStub(channel)
        metadata = (("authorization", f"Bearer {running_stack.demo_api_key}"),)
        question = c.Content(role="user", parts=[c.Part(text="Why do bridges have toll houses?")])
        request = g.GenerateContentRequest(tier="flash", contents=[question])
        answer = stub.GenerateContent(request, metadata=metadata, timeout=60)

    assert text_of(answer)


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (prompt("x", tier="no-such-tier"), grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
        (prompt("x", model="gpt-9"), grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
        (prompt("x", model="gemini-2.5-flash-image"), grpc.StatusCode.FAILED_PRECONDITION, "MODEL_SHUT_DOWN"),
        (g.GenerateContentRequest(tier="flash"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (prompt("x", tier="flash", model="gemini-3.5-flash"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (prompt("x", request_id="not-a-uuid"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (
            prompt("x", parent="tenants/other/departments/research/projects/assistant"),
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_DENIED",
        ),
        (
            prompt("x", parent="tenants/demo/departments/marketing/projects/campaigns"),
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_DENIED",
        ),
    ],
)
def test_a_wrong_call_is_a_clear_error(
    running_stack: RunningStack, request_: g.GenerateContentRequest, code: grpc.StatusCode, reason: str
) -> None:
    """Unknown model, shut-down model, malformed request, another tenant's or department's scope."""
    with generation_stub(running_stack) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.GenerateContent(request_, metadata=bearer(running_stack.demo_api_key), timeout=10)

    assert raised.value.code() == code
    assert reason_of(raised.value) == reason


@pytest.mark.parametrize("key", ["", "th_live_nonsense", "th_live_aaaaaaaaaaaa_" + "a" * 46])
def test_a_wrong_key_is_refused_and_told_nothing(running_stack: RunningStack, key: str) -> None:
    """Missing, malformed and unknown keys get the same words."""
    with generation_stub(running_stack) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.GenerateContent(prompt("x"), metadata=bearer(key) if key else (), timeout=10)

    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "missing, malformed, unknown, expired or revoked" in str(raised.value.details())


def test_a_message_that_is_none_is_refused(running_stack: RunningStack) -> None:
    """Bytes that are not the request's message: a typed error, not a crash."""
    with grpc.insecure_channel(running_stack.grpc) as channel:
        call: Any = channel.unary_unary("/tollhouse.v1.GenerationService/GenerateContent")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"\xff\xff\xff\xff", metadata=bearer(running_stack.demo_api_key), timeout=10)

    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == "INVALID_REQUEST"


def test_an_oversized_request_names_both_sizes(running_stack: RunningStack) -> None:
    """A little above the limit, so that the answer is ours."""
    request = prompt("x" * (32 * 1024 * 1024))
    with generation_stub(running_stack) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.GenerateContent(request, metadata=bearer(running_stack.demo_api_key), timeout=30)

    assert reason_of(raised.value) == "REQUEST_TOO_LARGE"
    assert "33554432" in str(raised.value.details())


def test_what_gemini_refuses_is_passed_on_and_costs_nothing(running_stack: RunningStack) -> None:
    """Google's own status and words travel as a detail."""
    request = prompt("x", generation_config=c.GenerationConfig(temperature=99.0))
    with generation_stub(running_stack) as stub, pytest.raises(grpc.RpcError) as raised:
        stub.GenerateContent(request, metadata=bearer(running_stack.demo_api_key), timeout=10)

    assert reason_of(raised.value) == "UPSTREAM_REFUSED"
    assert details_of(raised.value)["UpstreamError"].http_status == 400  # type: ignore[attr-defined]


def test_a_client_that_hangs_up_is_settled_all_the_same(running_stack: RunningStack) -> None:
    """Cancelled after the first chunk: the call still ends as one settled record."""
    request = prompt("[[tokens:400]] tell me a long story", labels={"case": "hang-up"})
    with generation_stub(running_stack) as stub:
        call = stub.StreamGenerateContent(request, metadata=bearer(running_stack.demo_api_key), timeout=20)
        next(iter(call))
        call.cancel()
    deadline = time.monotonic() + 10
    kinds: list[str] = []
    while time.monotonic() < deadline and not kinds:
        kinds = running_stack.records_labelled("case", "hang-up")
        time.sleep(0.1)

    assert kinds == ["SETTLED"]
