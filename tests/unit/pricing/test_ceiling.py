"""The worst case of a call holds, whatever Gemini answers."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import ModelUnpriced, UsageMissing
from tollhouse_server.long_values import LongMedia
from tollhouse_server.pricing.ceiling import Ceiling, ModelBounds, ceiling, ceiling_of_embedding
from tollhouse_server.pricing.media import media_of
from tollhouse_server.pricing.price import price
from tollhouse_server.pricing.terms import ModelPrices
from tollhouse_server.pricing.usage import StreamUsage, Tokens, Usage

from tests.recorded import RecordedExchange, recorded_exchanges

from .builders import BOOK, BOUNDS, NOW, prices, prices_of
from .test_price import price_lists

CAP = 8_192
KEYS = ["contents", "parts", "inlineData", "data", "mimeType", "tools", "generationConfig", "maxOutputTokens"]
KEYS += ["candidateCount", "imageConfig", "responseModalities", "requests", "serviceTier", "functionResponse"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


def size_of(request: dict[str, Any]) -> int:
    return len(json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode())


def text_request(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **fields}


def media_request(mime_type: str, content: bytes, **part: Any) -> dict[str, Any]:
    blob = {"mimeType": mime_type, "data": base64.b64encode(content).decode()}
    return {"contents": [{"parts": [{"inlineData": blob, **part}]}]}


def bound(request: dict[str, Any], model: str = "gemini-3.8-flash", bounds: ModelBounds = BOUNDS) -> Ceiling:
    return ceiling(prices_of(model), bounds, request, request_bytes=size_of(request), output_cap_tokens=CAP)


def priced_model(recorded: str) -> ModelPrices:
    """A recorded model's prices; models gone from the price book stand in as a sibling."""
    if any(one.model == recorded for one in BOOK.lists()):
        return prices_of(recorded)
    return prices_of(
        "gemini-embedding-2"
        if "embedding" in recorded
        else "gemini-2.5-pro"
        if "pro" in recorded
        else "gemini-2.5-flash"
    )


def test_every_recorded_answer_stays_below_its_ceiling() -> None:
    """For all that was recorded with the real API (tools, files, audio, video, thinking), the ceiling held."""
    checked = 0

    for exchange in recorded_exchanges():
        usage = _usage(exchange)
        if usage is None:
            continue
        terms, size = priced_model(exchange.model), size_of(exchange.request)
        if "mbed" in exchange.operation:
            most = ceiling_of_embedding(terms, exchange.request, request_bytes=size)
        else:
            most = ceiling(terms, BOUNDS, exchange.request, request_bytes=size, output_cap_tokens=CAP)
        assert price(terms, usage).cost_nanos <= most.cost_nanos, exchange.path
        assert usage.input_tokens <= most.input_tokens
        assert usage.output_tokens <= most.output_tokens
        checked += 1

    assert checked == 214


def _usage(exchange: RecordedExchange) -> Usage | None:
    if exchange.status != 200 or exchange.operation == "countTokens":
        return None
    stream = StreamUsage()
    for chunk in exchange.responses:
        stream.add(chunk)
    try:
        return stream.usage()
    except UsageMissing:
        return None


@given(
    price_lists(),
    st.text(max_size=200),
    st.integers(1, 70_000),
    st.integers(1, 8),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([None, "flex", "priority", "standard"]),
)
def test_no_answer_to_a_text_costs_more_than_its_ceiling(
    terms: ModelPrices, text: str, most: int, candidates: int, used: float, thought: float, tier: str | None
) -> None:
    """Any prompt of at most one token a byte, any answer within maxOutputTokens, any price: the ceiling holds."""
    config = {"maxOutputTokens": most, "candidateCount": candidates, "responseModalities": ["TEXT"]}
    request = text_request(text, generationConfig=config, **({"serviceTier": tier} if tier else {}))
    held = ceiling(terms, BOUNDS, request, request_bytes=size_of(request), output_cap_tokens=CAP)
    output = int(used * held.max_output_tokens) * candidates
    thoughts = int(output * thought)

    usage = Usage(
        prompt=Tokens(text=len(text.encode())),
        candidates=Tokens(text=output - thoughts),
        thoughts_tokens=thoughts,
        service_tier=tier,
    )

    assert price(terms, usage).cost_nanos <= held.cost_nanos


def test_a_ceiling_can_be_the_price_to_the_nano_dollar() -> None:
    """With free input, a text answer that uses all of maxOutputTokens costs exactly what was held."""
    free_input = {sku: 0 for sku in prices_of("gemini-3.8-flash").terms.nanos_per_million if "put_" in sku}
    nanos = free_input | {"output_text": 3_750_000_000, "thoughts": 3_750_000_000}
    # Half a cached token's price would be a fraction, but this call is not a flex one.
    terms = prices(nanos | {"cached_text": 75_000_000}, tier_permille={"flex": 500})
    request = text_request(generationConfig={"maxOutputTokens": 100})

    held = ceiling(terms, BOUNDS, request, request_bytes=size_of(request), output_cap_tokens=CAP)

    usage = Usage(prompt=Tokens(text=3), candidates=Tokens(text=60), thoughts_tokens=40)
    assert held.cost_nanos == price(terms, usage).cost_nanos == 375_000
    flex = ceiling(terms, BOUNDS, request | {"serviceTier": "flex"}, request_bytes=99, output_cap_tokens=1)
    assert (held.fixed_nanos, flex.fixed_nanos) == (0, 14)


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({}, CAP),
        ({"generationConfig": {"maxOutputTokens": 50}}, 50),
        ({"generationConfig": {"maxOutputTokens": "50"}}, 50),
        ({"generation_config": {"max_output_tokens": 60_000}}, 60_000),
        ({"generationConfig": {"maxOutputTokens": 10, "max_output_tokens": 60_000}}, 60_000),
        ({"generationConfig": {"maxOutputTokens": 10**9}}, 65_536),
        ({"generationConfig": {"maxOutputTokens": 0}}, CAP),
        ({"generationConfig": {"maxOutputTokens": -5}}, CAP),
        ({"generationConfig": {"maxOutputTokens": "lots"}}, CAP),
    ],
)
def test_output_is_never_unlimited(config: dict[str, Any], most: int) -> None:
    """The request's own limit in either spelling, else the cap, and never above the model's."""
    assert bound(text_request(**config)).max_output_tokens == most


def test_every_candidate_may_use_the_whole_output() -> None:
    """Eight candidates are eight answers; more are refused upstream."""
    eight = text_request(generationConfig={"maxOutputTokens": 100, "candidateCount": 8})
    many = text_request(generationConfig={"maxOutputTokens": 100, "candidateCount": 10**12})

    assert bound(eight).output_tokens == 800
    assert bound(many).output_tokens == 800


def test_a_priority_call_is_held_at_the_priority_price() -> None:
    """A reservation at the base tier would be overspent by 80 %."""
    standard, priority = bound(text_request()), bound(text_request(serviceTier="priority"))

    assert priority.cost_nanos >= standard.cost_nanos * 18 // 10


def test_a_flex_call_is_held_at_the_standard_price() -> None:
    """Nothing promises that flex is served as flex."""
    assert bound(text_request(serviceTier="flex")).cost_nanos >= bound(text_request()).cost_nanos


def test_a_prompt_that_may_be_long_is_held_at_the_long_price() -> None:
    """A bound above 200k tokens takes the long prices for input and output."""
    request = text_request("x" * 250_000, generationConfig={"maxOutputTokens": 1_000})

    held = bound(request, "gemini-2.5-pro")

    assert held.cost_nanos >= 250_000 * 2_500 + 1_000 * 15_000


def test_an_explicit_cache_counts_whole() -> None:
    """A cache of unknown size may fill the context; a known one counts as known."""
    request = text_request(cachedContent="cachedContents/1")
    known = ceiling(
        prices_of("gemini-2.5-flash"),
        BOUNDS,
        request,
        request_bytes=size_of(request),
        output_cap_tokens=CAP,
        cached_content_tokens=50_000,
    )

    assert bound(request, "gemini-2.5-flash").input_tokens >= 1_048_576
    assert 50_000 < known.input_tokens < 51_000


def test_an_image_model_holds_its_images_at_the_image_price() -> None:
    """Ten images of 2,000 tokens at $120 per million; a smaller size holds less, text only holds none."""
    large = bound(text_request(generationConfig={"imageConfig": {"imageSize": "4K"}}), "gemini-3-pro-image")
    small = bound(text_request(), "gemini-3-pro-image")
    none = bound(text_request(generationConfig={"responseModalities": ["TEXT"]}), "gemini-3-pro-image")

    assert (large.images, small.images, none.images) == (10, 10, 0)
    assert large.cost_nanos - none.cost_nanos > 10 * 2_000 * 120_000 - 100_000
    assert large.cost_nanos > small.cost_nanos > none.cost_nanos


def test_media_cost_by_what_they_can_become_and_not_by_their_bytes() -> None:
    """A large image is still an image; sound is bounded by its real rate; a video only by the context."""
    wav = b"RIFF\x00\x00\x00\x00WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + b"\0" * 320_000

    assert 6_450 <= bound(media_request("image/png", b"\x89PNG" + b"\0" * 900_000)).input_tokens < 6_700
    assert 320 <= bound(media_request("audio/wav", wav)).input_tokens < 600
    assert 32_000 < bound(media_request("audio/mpeg", b"ID3" + b"\0" * 1_000_000)).input_tokens < 32_500
    assert bound(media_request("video/mp4", b"\0" * 1_000)).input_tokens >= 1_048_576
    assert bound(media_request("application/pdf", b"%PDF" + b"\0" * 79)).input_tokens >= 11 * 560


def test_media_without_a_bound_of_their_own_share_one_context() -> None:
    """Two films cannot fill more than the model's context, which upstream enforces; text comes on top."""
    part = media_request("video/mp4", b"\0" * 100)["contents"][0]["parts"][0]
    request = {"contents": [{"parts": [part, part, {"text": "x" * 2_000_000}]}]}

    assert 3_048_576 < bound(request).input_tokens < 3_050_000


def test_sound_that_does_not_say_its_rate_may_fill_the_context() -> None:
    """The claimed type is not believed: a minute of silence fits into a few bytes of some formats."""
    assert bound(media_request("audio/mpeg", b"fLaC" + b"\0" * 1_000)).input_tokens >= 1_048_576


@pytest.mark.parametrize("kind", ["audio/wav", "image/png", "application/pdf", "text/plain", "video/mp4"])
def test_long_media_are_bounded_as_their_base64_is(kind: str) -> None:
    """They are not in base64 when their price is worked out."""
    wav = b"RIFF\x00\x00\x00\x00WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + b"\0" * 320_000
    request = media_request(kind, wav)
    (medium,) = media_of(request, is_high_resolution=False)
    request["contents"][0]["parts"][0]["inlineData"]["data"] = LongMedia((wav,))

    (long,) = media_of(request, is_high_resolution=False)

    assert long == medium


def test_a_wav_cannot_claim_a_rate_of_zero() -> None:
    """A header that would divide by zero bounds nothing."""
    header = b"RIFF\x00\x00\x00\x00WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 0, 0, 0, 16)

    assert bound(media_request("audio/wav", header)).input_tokens >= 1_048_576


def test_media_in_the_other_spelling_and_in_tool_answers_are_found() -> None:
    """Google reads snake_case keys and media in function responses too."""
    blob = {"mime_type": "video/mp4", "data": "AAAA"}
    snake = {"contents": {"parts": {"inline_data": blob}}}
    nested = text_request()
    nested["contents"][0]["parts"].append({"functionResponse": {"name": "f", "parts": [{"inline_data": blob}]}})

    assert bound(snake).input_tokens >= 1_048_576
    assert bound(nested).input_tokens >= 1_048_576


def test_audio_is_held_at_the_audio_price() -> None:
    """2.5 Flash charges audio at more than three times the price of text."""
    request = media_request("audio/mpeg", b"ID3" + b"\0" * 1_000_000)

    assert bound(request, "gemini-2.5-flash").cost_nanos > 32_000 * 1_000


def test_tools_that_run_at_google_hold_a_context_and_their_queries() -> None:
    """Search puts results into the prompt and is charged by the query."""
    plain, search = bound(text_request()), bound(text_request(tools=[{"google_search": {}}]))
    execution = bound(text_request(tools=[{"codeExecution": {}}]))

    assert search.input_tokens >= plain.input_tokens + 1_048_576
    assert execution.cost_nanos - plain.cost_nanos >= 1_048_576 * 750
    assert search.cost_nanos - execution.cost_nanos == pytest.approx(20 * 14_000_000, abs=10_000)


def test_an_operator_can_bound_what_tools_put_into_the_prompt() -> None:
    """The catalogue's own bound replaces the whole context."""
    bounds = ModelBounds(input_token_limit=1_048_576, output_token_limit=65_536, tool_prompt_tokens=20_000)

    assert bound(text_request(tools=[{"urlContext": {}}]), bounds=bounds).input_tokens < 22_000


@pytest.mark.parametrize("tool", ["googleMaps", "enterpriseWebSearch", "somethingNew"])
def test_a_tool_without_a_price_is_refused(tool: str) -> None:
    """Nothing is sent that could be charged at a price nobody stated."""
    with pytest.raises(ModelUnpriced, match=tool):
        bound(text_request(tools=[{tool: {}}]))


def test_a_medium_without_a_price_is_refused() -> None:
    """Images to an embedding model that has no image price are refused, not free."""
    request = {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}}

    with pytest.raises(ModelUnpriced, match="input_image"):
        ceiling_of_embedding(prices_of("gemini-embedding-001"), request, request_bytes=size_of(request))


def test_a_document_without_a_price_is_refused_though_images_have_one() -> None:
    """What the caller sends must be priced itself, not only what it may be reported as."""
    terms = prices({"input_text": 1, "input_image": 1, "output_text": 1, "thoughts": 1})
    request = media_request("application/pdf", b"%PDF")

    with pytest.raises(ModelUnpriced, match="input_document"):
        ceiling(terms, BOUNDS, request, request_bytes=size_of(request), output_cap_tokens=CAP)


def test_lines_that_are_each_rounded_up_stay_below_the_ceiling() -> None:
    """Two lines of 1.5 nano-dollars are charged as 4; the bound of the unrounded sum would be 3."""
    terms = prices({"input_text": 0, "output_text": 500_000, "thoughts": 500_000})
    request = text_request(generationConfig={"maxOutputTokens": 6})

    held = ceiling(terms, BOUNDS, request, request_bytes=size_of(request), output_cap_tokens=CAP)

    cost = price(terms, Usage(candidates=Tokens(text=3), thoughts_tokens=3)).cost_nanos
    assert cost == 4
    assert cost <= held.cost_nanos


@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4))
def test_any_json_has_a_ceiling_or_a_named_refusal(request: Any) -> None:
    """A request of any shape is bounded or refused, never a crash."""
    try:
        held = ceiling(prices_of("gemini-3-pro-image"), BOUNDS, request, request_bytes=1_000, output_cap_tokens=CAP)
    except ModelUnpriced:
        return

    assert held.cost_nanos > 0


def test_the_moment_decides_the_ceilings_price() -> None:
    """A call after the change of prices is held at the new ones."""
    request = text_request()
    later = BOOK.terms("gemini-4-argon", NOW.replace(month=12, day=2))

    held = ceiling(later, BOUNDS, request, request_bytes=size_of(request), output_cap_tokens=CAP)

    assert held.cost_nanos == 2 * bound(request, "gemini-4-argon").cost_nanos
