"""Catalogue files of an administrator: what they may say, what they change, and how one is written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.routing.catalogue_file import (
    ModelEntry,
    TakenNames,
    checked,
    packaged_catalogue,
    parse_catalogue,
    parse_edits,
)
from tollhouse_server.routing.catalogue_import import difference
from tollhouse_server.routing.catalogue_text import catalogue_toml
from tollhouse_server.routing.models import Capability

TAKEN = TakenNames(models={"gemma"}, aliases={"smaller"})
FILE = """
[api_versions.vertex]
"generateContent" = "v1"

[[models]]
model = "smollm2"
display_name = "Smol"
upstreams = ["openai_compatible"]
capabilities = ["GENERATE_CONTENT"]
input_token_limit = 8192
output_token_limit = 2048
source = "own machine"
aliases = [{ alias = "smol" }]

[[tiers]]
tier = "edge"
display_name = "Edge"
description = "On own machines."
targets = [{ model = "smollm2", rank = 0, weight = 3 }, { model = "gemma", rank = 0 }]
"""
MODEL: dict[str, Any] = {
    "model": "smollm2",
    "display_name": "Smol",
    "upstreams": ["openai_compatible"],
    "capabilities": ["GENERATE_CONTENT"],
    "input_token_limit": 8192,
    "output_token_limit": 2048,
    "source": "own machine",
}
SUNSET = "2027-03-01T00:00:00Z"
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ("models = 3", "models"),
        ("[[models", ""),
        ("a = " + "[" * 5_000, ""),
        ('colour = "red"', "colour"),
        (FILE.replace('"GENERATE_CONTENT"', '"SING"'), "models[0].capabilities[0]"),
        (FILE.replace("output_token_limit = 2048", "output_token_limit = 0"), "models[0].output_token_limit"),
        (FILE.replace('model = "gemma"', 'model = "nobody"'), "tiers[0].targets[1].model"),
        (FILE.replace('source = "own machine"', 'source = "s"\nsuccessor = "nobody"'), "models[0].successor"),
        (FILE.replace('alias = "smol"', 'alias = "gemma"'), "models[0].aliases[0].alias"),
        (FILE.replace('alias = "smol"', 'alias = "smollm2"'), "models[0].aliases[0].alias"),
        (FILE.replace('model = "smollm2"\ndisplay', 'model = "smaller"\ndisplay'), "models[0].model"),
        (FILE.replace('tier = "edge"', 'tier = "auto"'), "tiers[0].tier"),
        (FILE.replace('= "v1"', '= "v1/../v2"'), "api_versions.vertex.generateContent"),
        (FILE.replace('"generateContent" =', '"singContent" ='), "api_versions.vertex.singContent.[key]"),
    ],
)
def test_a_file_with_a_defect_is_refused_with_the_field_named(content: str, path: str) -> None:
    """Unknown keys and values, contradictions, names that lead nowhere or to two things, parts of a path."""
    with pytest.raises(InvalidRequest) as refused:
        parse_edits(content, TAKEN)

    assert path in {one.path for one in refused.value.violations}


def test_a_file_without_defects_is_taken() -> None:
    """The file that the cases above break is right before they break it; an alias may pass to another model."""
    assert parse_edits(FILE, TAKEN).models[0].model == "smollm2"
    assert parse_edits(FILE.replace('alias = "smol"', 'alias = "smaller"'), TAKEN).models[0].aliases


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"upstreams": []}, "upstreams"),
        ({"upstreams": ["bedrock"]}, "upstreams[0]"),
        ({"input_token_limit": 0}, "input_token_limit"),
        ({"output_token_limit": -1}, "output_token_limit"),
        ({"output_token_limit": 0}, "output_token_limit"),
        ({"source": " "}, "source"),
        ({"source": "a\0b"}, "source"),
        ({"display_name": None}, "display_name"),
        ({"display_name": "x" * 501}, "display_name"),
        ({"images_per_answer": 101}, "images_per_answer"),
        ({"grounding_queries": 1.5}, "grounding_queries"),
        ({"tool_prompt_tokens": -1}, "tool_prompt_tokens"),
        ({"capabilities": ["IMAGE_OUTPUT"]}, "images_per_answer"),
        ({"capabilities": ["BATCH", "BATCH"]}, "capabilities"),
        ({"notice_at": SUNSET}, "notice_at"),
        ({"notice_at": SUNSET, "shutdown_at": SUNSET}, "notice_at"),
        ({"successor": "smollm2"}, "successor"),
    ],
)
def test_a_model_with_a_defect_is_refused_with_the_field_named(values: dict[str, Any], path: str) -> None:
    """Null, blank, negative, huge, doubled, and what two fields do not let stand together."""
    with pytest.raises(InvalidRequest) as refused:
        checked(ModelEntry, {**MODEL, **values})

    assert refused.value.violations[0].path == path


def test_an_unknown_capability_is_answered_with_the_known_ones() -> None:
    """Whoever writes a file need not look them up elsewhere."""
    with pytest.raises(InvalidRequest) as refused:
        checked(ModelEntry, {**MODEL, "capabilities": ["SING"]})

    assert all(one.value in refused.value.message() for one in Capability)


def test_the_packaged_catalogue_reads_as_it_is_written() -> None:
    """Written and read again it is the same, so its import changes nothing."""
    packaged = packaged_catalogue()

    again = parse_catalogue(catalogue_toml(packaged))

    assert again == packaged
    assert difference(packaged, again).changes == ()


@given(texts.filter(lambda text: text.strip()))
def test_any_text_survives_being_written_and_read(text: str) -> None:
    """Quotes, backslashes, control characters and line ends included."""
    packaged = packaged_catalogue()
    model = checked(ModelEntry, {**MODEL, "display_name": text})
    catalogue = packaged.model_copy(update={"models": (*packaged.models, model)})

    assert parse_catalogue(catalogue_toml(catalogue)) == catalogue


def test_gemma_can_count_and_answer_in_a_shape() -> None:
    """Both servers of models of one's own that are supported can: llama.cpp and vLLM."""
    gemma = [one for one in packaged_catalogue().models if one.model.startswith("gemma-4-")]

    assert len(gemma) == 2
    for one in gemma:
        assert {Capability.COUNT_TOKENS, Capability.STRUCTURED_OUTPUT} <= set(one.capabilities)
