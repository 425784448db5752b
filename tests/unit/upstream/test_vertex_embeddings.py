"""Embeddings from one form to Vertex's three and back: counts that are missing stay missing."""

import json
from typing import Any

import pytest
from tollhouse_server.upstream.protocol import Broken, Refused
from tollhouse_server.upstream.vertex_embeddings import question

OLD = "text-multilingual-embedding-002"


def content(*texts: str) -> dict[str, Any]:
    """Build a content."""
    return {"parts": [{"text": text} for text in texts]}


def asked(model: str, *requests: dict[str, Any]) -> tuple[str, Any]:
    """Return the method and the body for requests."""
    made = question(json.dumps({"requests": requests}).encode(), model)
    return made.method, json.loads(made.body)


def answered(model: str, answer: dict[str, Any], *, count: int = 1) -> dict[str, Any]:
    """Return what callers see of an answer."""
    requests = [{"content": content("x")}] * count
    return question(json.dumps({"requests": requests}).encode(), model).answer(answer)


def test_what_stands_beside_the_content_goes_into_its_configuration() -> None:
    """Names that nobody knows yet travel along; the model's name, which stands in the path, does not."""
    request = {
        "model": "models/m",
        "content": content("x"),
        "taskType": "CLUSTERING",
        "title": "t",
        "documentOcr": True,
    }
    config = {"taskType": "CLUSTERING", "title": "t", "documentOcr": True}

    assert asked("gemini-embedding-2", request) == (
        "embedContent",
        {"content": content("x"), "embedContentConfig": config},
    )
    assert asked("gemini-embedding-2", request, {"content": content("y")}) == (
        "batchEmbedContents",
        {"requests": [{"content": content("x"), "embedContentConfig": config}, {"content": content("y")}]},
    )


def test_an_older_model_predicts() -> None:
    """Text in instances, what holds for all of them in parameters."""
    requests = [
        {"content": content("a", "b"), "taskType": "CLUSTERING", "title": "t", "outputDimensionality": 8},
        {"content": content("c"), "outputDimensionality": 8},
    ]

    assert asked(OLD, *requests) == (
        "predict",
        {
            "instances": [{"content": "ab", "task_type": "CLUSTERING", "title": "t"}, {"content": "c"}],
            "parameters": {"outputDimensionality": 8},
        },
    )


@pytest.mark.parametrize(
    ("model", "requests"),
    [
        (OLD, [{"content": content("a"), "outputDimensionality": 8}, {"content": content("b")}]),
        (OLD, [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]}}]),
        (OLD, [{"content": content("a"), "documentOcr": True}]),
        ("e5-maas", [{"content": content("a")}, {"content": content("b")}]),
    ],
    ids=["two lengths", "picture", "unknown member", "two for one"],
)
def test_what_cannot_be_asked_in_one_request_is_refused(model: str, requests: list[dict[str, Any]]) -> None:
    """Dropping a wish would be worse."""
    with pytest.raises(Refused) as raised:
        asked(model, *requests)

    assert raised.value.http_status == 400
    assert raised.value.error["status"] == "INVALID_ARGUMENT"


def test_predictions_become_embeddings_with_their_usage() -> None:
    """The sum of the items' counts is the prompt's; what else was said stays."""
    statistics = {"token_count": 3.0, "truncated": False}
    predictions = [
        {"embeddings": {"values": [0.5], "statistics": statistics}},
        {"embeddings": {"values": [0.25], "statistics": {"token_count": 4, "truncated": True}}},
    ]

    assert answered(OLD, {"predictions": predictions, "metadata": {"billableCharacterCount": 9}}, count=2) == {
        "embeddings": [
            {"values": [0.5], "statistics": {"tokenCount": 3.0, "truncated": False}},
            {"values": [0.25], "statistics": {"tokenCount": 4, "truncated": True}},
        ],
        "metadata": {"billableCharacterCount": 9},
        "truncated": True,
        "usageMetadata": {"promptTokenCount": 7},
    }


@pytest.mark.parametrize("statistics", [None, {}, {"token_count": None}, {"token_count": 1.5}])
def test_a_missing_count_is_not_zero(statistics: dict[str, Any] | None) -> None:
    """One item without a count, and there is no usage."""
    second: dict[str, Any] = {"values": [1]} | ({} if statistics is None else {"statistics": statistics})
    predictions = [{"embeddings": {"values": [0.5], "statistics": {"token_count": 3}}}, {"embeddings": second}]

    assert "usageMetadata" not in answered(OLD, {"predictions": predictions}, count=2)


@pytest.mark.parametrize("answer", [{}, {"predictions": None}, {"predictions": [{}]}, {"predictions": ["x"]}])
def test_an_answer_without_predictions_is_broken(answer: dict[str, Any]) -> None:
    """It was sent as a success and may have been charged."""
    with pytest.raises(Broken):
        answered(OLD, answer)


def test_a_single_embedding_becomes_a_list() -> None:
    """Usage and the rest stay as they are."""
    answer = {"embedding": {"values": [1]}, "usageMetadata": {"promptTokenCount": 2}, "truncated": True}

    assert answered("gemini-embedding-2", answer) == {
        "embeddings": [{"values": [1]}],
        "usageMetadata": {"promptTokenCount": 2},
        "truncated": True,
    }
