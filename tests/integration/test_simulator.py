"""The real google-genai SDK drives the simulator over HTTP."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.genai import types
from PIL.PngImagePlugin import PngImageFile
from tollhouse_server.simulator.client import RunningSimulator, running_simulator

from tests.drivers.simulator import Gemini, assert_adds_up, calls_of, sdk

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLASH = "gemini-3.5-flash"
OLD_FLASH = "gemini-2.5-flash"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator() as running:
        yield running


@pytest.fixture
def key() -> str:
    """A key of the test's own, so that tests share one simulator without meeting."""
    return f"key-{uuid.uuid4().hex}"


@pytest_asyncio.fixture(loop_scope="module")
async def gemini(simulator: RunningSimulator, key: str) -> AsyncIterator[Gemini]:
    async with sdk(simulator, key) as client:
        yield client


async def test_a_unary_call_answers_and_is_logged_with_the_usage_it_reports(
    simulator: RunningSimulator, gemini: Gemini, key: str
) -> None:
    """What the client is told is what the referee has."""
    response = await gemini.models.generate_content(model=FLASH, contents="How deep is the toll road?")

    [row] = await calls_of(simulator, key)
    assert "How deep is the toll road?" in response.text
    assert_adds_up(response.usage_metadata)
    assert row.usage["totalTokenCount"] == response.usage_metadata.total_token_count
    assert (row.model, row.method, row.response_id) == (FLASH, "generateContent", response.response_id)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_a_stream_ends_with_a_finish_reason_and_the_logged_usage(
    simulator: RunningSimulator, key: str, version: str
) -> None:
    """Every chunk's usage adds up, and the last one's is the call's."""
    async with sdk(simulator, key, version) as client:
        stream = await client.models.generate_content_stream(model=FLASH, contents="Count. [[tokens:100]]")
        chunks = [chunk async for chunk in stream]

    [row] = await calls_of(simulator, key)
    for chunk in chunks:
        assert_adds_up(chunk.usage_metadata)
        assert chunk.model_version == FLASH
    assert len(chunks) > 3
    assert [bool(chunk.candidates[0].finish_reason) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage_metadata.candidates_token_count == 100
    assert row.usage["totalTokenCount"] == chunks[-1].usage_metadata.total_token_count


async def test_a_stream_says_what_the_unary_answer_says(gemini: Gemini) -> None:
    """Same request, same text and same usage, by either method."""
    unary = await gemini.models.generate_content(model=FLASH, contents="Grüße aus Köln, 東京 [[tokens:90]]")
    stream = await gemini.models.generate_content_stream(model=FLASH, contents="Grüße aus Köln, 東京 [[tokens:90]]")
    chunks = [chunk async for chunk in stream]

    text = "".join(part.text or "" for chunk in chunks for part in chunk.candidates[0].content.parts)
    assert text == unary.text
    assert chunks[-1].usage_metadata == unary.usage_metadata


async def test_equal_requests_get_equal_answers(gemini: Gemini) -> None:
    """An answer depends on the request alone."""
    one = await gemini.models.generate_content(model=FLASH, contents="Again?")
    two = await gemini.models.generate_content(model=FLASH, contents="Again?")
    other = await gemini.models.generate_content(model=FLASH, contents="Something else?")

    assert one.model_dump(exclude={"sdk_http_response"}) == two.model_dump(exclude={"sdk_http_response"})
    assert one.response_id != other.response_id


async def test_count_tokens_agrees_with_the_prompt_token_count(gemini: Gemini) -> None:
    """Counting and generating see the same prompt."""
    contents = [types.Part.from_text(text="Zähle dies."), types.Part.from_bytes(data=b"x", mime_type="image/png")]

    counted = await gemini.models.count_tokens(model=FLASH, contents=contents)
    answered = await gemini.models.generate_content(model=FLASH, contents=contents)

    assert counted.total_tokens == answered.usage_metadata.prompt_token_count == 3 + 1120


async def test_embeddings_have_the_size_asked_for_and_are_logged(
    simulator: RunningSimulator, gemini: Gemini, key: str
) -> None:
    """Batches count what all their texts count."""
    response = await gemini.models.embed_content(
        model="gemini-embedding-001",
        contents=["hello toll", "goodbye"],
        config=types.EmbedContentConfig(output_dimensionality=64),
    )

    [row] = await calls_of(simulator, key)
    assert [len(each.values) for each in response.embeddings] == [64, 64]
    assert sum(value**2 for value in response.embeddings[0].values) == pytest.approx(1)
    assert row.method == "batchEmbedContents"
    assert row.usage["promptTokenCount"] == 3 + 2


async def test_models_are_listed_in_pages_and_shown_singly(gemini: Gemini) -> None:
    """Paging reaches every model once."""
    pager = await gemini.models.list(config={"page_size": 5})
    names = [model.name async for model in pager]
    shown = await gemini.models.get(model="gemini-4-argon")

    assert len(names) == len(set(names)) > 15
    assert "models/gemini-nano-banana-2.1" in names
    assert shown.display_name == "Gemini 4 Argon"


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("gemini-2.5-flash-image", None, 1290),
        ("gemini-3-pro-image", "2K", 1120),
        ("gemini-3-pro-image", "4K", 2000),
        ("gemini-nano-banana-2.1", "1K", 1120),
    ],
)
async def test_an_image_model_draws_a_real_png_of_the_prompt(
    simulator: RunningSimulator, gemini: Gemini, key: str, model: str, size: str | None, tokens: int
) -> None:
    """The picture opens, has the size asked for, shows the prompt, and counts by its size."""
    config = types.GenerateContentConfig(image_config=types.ImageConfig(image_size=size, aspect_ratio="16:9"))
    response = await gemini.models.generate_content(model=model, contents="a toll house at dusk", config=config)

    [row] = await calls_of(simulator, key)
    [blob] = [part.inline_data for part in response.candidates[0].content.parts if part.inline_data]
    picture = PngImageFile(io.BytesIO(blob.data))
    by_modality = {each.modality: each.token_count for each in response.usage_metadata.candidates_tokens_details}
    assert picture.format == "PNG"
    assert picture.width == {"2K": 2048, "4K": 4096}.get(size or "1K", 1024)
    assert picture.text["prompt"] == "a toll house at dusk"
    assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 1
    assert by_modality["IMAGE"] == tokens
    assert row.image_count == 1
    assert_adds_up(response.usage_metadata)


def weather_tool() -> types.Tool:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2, "maximum": 4}},
        "required": ["city", "days"],
    }
    declaration = types.FunctionDeclaration(name="get_weather", description="Weather", parameters_json_schema=schema)
    return types.Tool(function_declarations=[declaration])


async def test_a_function_is_called_and_its_response_is_answered_in_text(gemini: Gemini) -> None:
    """One turn of tool use: call with plausible arguments, then text."""
    off = types.AutomaticFunctionCallingConfig(disable=True)
    config = types.GenerateContentConfig(tools=[weather_tool()], automatic_function_calling=off)

    first = await gemini.models.generate_content(model=FLASH, contents="Weather?", config=config)
    [call] = first.function_calls
    reply = types.Part.from_function_response(name=call.name, response={"celsius": 21})
    contents = [types.UserContent("Weather?"), first.candidates[0].content, types.UserContent([reply])]
    second = await gemini.models.generate_content(model=FLASH, contents=contents, config=config)

    assert call.name == "get_weather"
    assert isinstance(call.args["city"], str)
    assert 2 <= call.args["days"] <= 4
    assert second.function_calls is None
    assert second.text


@pytest.mark.parametrize(("mode", "calls"), [("ANY", True), ("NONE", False), ("AUTO", True)])
async def test_the_function_calling_mode_decides(gemini: Gemini, mode: str, calls: bool) -> None:
    """ANY calls even where the prompt asks for text, NONE never does."""
    calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode(mode))
    config = types.GenerateContentConfig(
        tools=[weather_tool()], tool_config=types.ToolConfig(function_calling_config=calling)
    )
    prompt = "Weather? [[text]]" if mode == "ANY" else "Weather?"

    response = await gemini.models.generate_content(model=FLASH, contents=prompt, config=config)

    assert bool(response.function_calls) is calls


async def test_structured_output_fits_its_schema(gemini: Gemini) -> None:
    """Both schema forms give JSON that fits."""
    openapi = {"type": "OBJECT", "properties": {"kind": {"type": "STRING", "enum": ["car", "cart"]}}}
    json_schema = {"type": "array", "items": {"type": "integer", "minimum": 5}, "minItems": 2, "maxItems": 2}
    as_json = "application/json"

    one = await gemini.models.generate_content(
        model=FLASH,
        contents="Pick",
        config=types.GenerateContentConfig(response_mime_type=as_json, response_schema=openapi),
    )
    two = await gemini.models.generate_content(
        model=FLASH,
        contents="Pick",
        config=types.GenerateContentConfig(response_mime_type=as_json, response_json_schema=json_schema),
    )

    numbers = json.loads(two.text)
    assert json.loads(one.text)["kind"] in {"car", "cart"}
    assert len(numbers) == 2
    assert min(numbers) >= 5


async def test_thinking_is_counted_shown_on_demand_and_switched_off_by_budget_zero(gemini: Gemini) -> None:
    """Thoughts follow thinkingConfig."""
    shown = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    off = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(thinking_budget=0))

    loud = await gemini.models.generate_content(model=OLD_FLASH, contents="Why?", config=shown)
    quiet = await gemini.models.generate_content(model=OLD_FLASH, contents="Why?", config=off)

    assert loud.usage_metadata.thoughts_token_count > 0
    assert loud.candidates[0].content.parts[0].thought
    assert not quiet.usage_metadata.thoughts_token_count


async def test_full_uses_every_token_up_to_the_maximum_thoughts_included(gemini: Gemini) -> None:
    """A call whose worst case is its price."""
    config = types.GenerateContentConfig(max_output_tokens=300)

    response = await gemini.models.generate_content(model=FLASH, contents="All of it [[full]]", config=config)

    usage = response.usage_metadata
    assert usage.candidates_token_count + usage.thoughts_token_count == 300
    assert usage.thoughts_token_count > 0
    assert response.candidates[0].finish_reason == "MAX_TOKENS"


async def test_a_blocked_prompt_is_an_answer_that_is_billed(
    simulator: RunningSimulator, gemini: Gemini, key: str
) -> None:
    """A block has no candidates, counts its prompt, and is logged."""
    response = await gemini.models.generate_content(model=FLASH, contents="Bad [[block:SAFETY]]")

    [row] = await calls_of(simulator, key)
    assert response.candidates is None
    assert response.prompt_feedback.block_reason == "SAFETY"
    assert row.usage["totalTokenCount"] == row.usage["promptTokenCount"] > 0


@pytest.mark.parametrize(("reason", "text_is_kept"), [("RECITATION", False), ("LANGUAGE", True)])
async def test_a_finish_reason_can_be_asked_for(gemini: Gemini, reason: str, text_is_kept: bool) -> None:
    """The marker's reason ends the candidate; one that withholds the content leaves none."""
    response = await gemini.models.generate_content(model=FLASH, contents=f"Sing [[finish:{reason}]]")

    assert response.candidates[0].finish_reason == reason
    assert bool(response.text) is text_is_kept


async def test_search_grounding_code_execution_and_url_context_show_in_their_shapes(gemini: Gemini) -> None:
    """Gemini's own tools leave their traces and their tokens."""
    tools: list[Any] = [types.Tool(google_search=types.GoogleSearch()), types.Tool(url_context=types.UrlContext())]
    search = await gemini.models.generate_content(
        model=FLASH, contents="News of https://example.org/a", config=types.GenerateContentConfig(tools=tools)
    )
    code = await gemini.models.generate_content(
        model=FLASH,
        contents="Sum",
        config=types.GenerateContentConfig(tools=[types.Tool(code_execution=types.ToolCodeExecution())]),
    )

    candidate = search.candidates[0]
    assert candidate.grounding_metadata.web_search_queries
    assert candidate.url_context_metadata.url_metadata[0].retrieved_url == "https://example.org/a"
    assert search.usage_metadata.tool_use_prompt_token_count > 0
    assert code.executable_code.startswith("print(")
    assert_adds_up(search.usage_metadata)
    assert_adds_up(code.usage_metadata)


async def test_a_long_prefix_seen_before_counts_as_cached(gemini: Gemini) -> None:
    """Blocks of 8,192 characters that an earlier call began with are cached, 2,048 tokens each."""
    book = "The toll rises with the weight of the cart. " * 500

    first = await gemini.models.generate_content(model=FLASH, contents=book + "One?")
    second = await gemini.models.generate_content(model=FLASH, contents=book + "Two?")

    assert not first.usage_metadata.cached_content_token_count
    assert second.usage_metadata.cached_content_token_count == 2 * 2048
    assert_adds_up(second.usage_metadata)


async def test_a_named_cache_counts_as_cached_prompt(gemini: Gemini) -> None:
    """Tokens of a named cache are part of the prompt."""
    config = types.GenerateContentConfig(cached_content="cachedContents/tokens-5000")

    response = await gemini.models.generate_content(model=FLASH, contents="Now?", config=config)

    assert response.usage_metadata.cached_content_token_count == 5000
    assert response.usage_metadata.prompt_token_count == 5001
