"""What a request needs, read from its body."""

from typing import Any

import pytest
from tollhouse_server.routing.models import Capability
from tollhouse_server.routing.requirements import requirements_of

from tests.unit.routing.build import text_of


def turn(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": "see"}, *parts]}]}


def blob(mime_type: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": "AA=="}}


FIRST = "contents[0].parts[1]"
CONFIG = "generation_config"


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        (text_of("hello"), {}),
        (turn(blob("text/csv")), {}),
        (turn(blob("image/png")), {Capability.IMAGE_INPUT: f"{FIRST}.inline_data"}),
        (turn(blob("AUDIO/WAV")), {Capability.AUDIO_INPUT: f"{FIRST}.inline_data"}),
        (turn({"fileData": {"mimeType": "video/mp4"}}), {Capability.VIDEO_INPUT: f"{FIRST}.file_data"}),
        (turn({"text": "x", **blob("application/pdf")}), {Capability.DOCUMENT_INPUT: f"{FIRST}.inline_data"}),
        (
            turn({"functionResponse": {"parts": [blob("image/png")]}}),
            {Capability.IMAGE_INPUT: f"{FIRST}.function_response.parts[0].inline_data"},
        ),
        (
            {"requests": [{"content": {"parts": [blob("image/png")]}}]},
            {Capability.IMAGE_INPUT: "contents[0].parts[0].inline_data"},
        ),
        ({"tools": [{"googleSearch": {}}]}, {}),
        (
            {"tools": [{"googleSearch": {}}, {"functionDeclarations": [{"name": "f"}]}]},
            {Capability.FUNCTION_CALLING: "tools[1].function_declarations"},
        ),
        ({"cachedContent": "cachedContents/1"}, {Capability.CONTEXT_CACHING: "cached_content"}),
        (
            {"generationConfig": {"responseSchema": {"type": "OBJECT"}}},
            {Capability.STRUCTURED_OUTPUT: f"{CONFIG}.response_schema"},
        ),
        (
            {"generationConfig": {"responseMimeType": "application/json"}},
            {Capability.STRUCTURED_OUTPUT: f"{CONFIG}.response_mime_type"},
        ),
        (
            {"generationConfig": {"responseModalities": ["TEXT", "Image"]}},
            {Capability.IMAGE_OUTPUT: f"{CONFIG}.response_modalities"},
        ),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}},
            {Capability.THINKING: f"{CONFIG}.thinking_config"},
        ),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}},
            {Capability.THINKING: f"{CONFIG}.thinking_config"},
        ),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}, {}),
        ({"contents": [None, {"parts": "?"}], "tools": "?", "generationConfig": []}, {}),
    ],
)
def test_each_part_of_a_request_needs_what_it_needs(body: dict[str, Any], needs: dict[Capability, str]) -> None:
    """By the field that a caller would have to change; what is not known here needs nothing."""
    assert requirements_of(body).fields == needs


def test_all_text_counts_and_nothing_else() -> None:
    """Two turns and the instruction; base64 is no text."""
    body = text_of("x" * 100) | {"systemInstruction": {"parts": [{"text": "y" * 60}]}}
    body["contents"].append({"parts": [{"text": "z" * 40}, blob("image/png")]})

    found = requirements_of(body)

    assert (found.characters, found.likely_input_tokens, found.least_input_tokens) == (200, 50, 6)


def test_embeddings_are_never_too_large() -> None:
    """Google cuts off what is too long for an embedding model, and answers."""
    body = {"requests": [{"content": {"parts": [{"text": "x" * 100_000}]}}]}

    assert requirements_of(body).least_input_tokens == 0
