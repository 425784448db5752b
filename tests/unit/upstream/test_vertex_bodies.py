"""What Vertex AI has elsewhere is moved there, and nothing else in a body is touched."""

import json
from typing import Any

import pytest
from tollhouse_server.upstream.protocol import Destination
from tollhouse_server.upstream.vertex_bodies import counted, generated

WHERE = Destination(base_url="https://v", api_version="v1beta1", model="m", project="p", region="r")


def moved(body: dict[str, Any]) -> Any:
    """Return a body as Vertex gets it."""
    return json.loads(bytes(generated(json.dumps(body, separators=(",", ":")).encode(), WHERE)))


def test_a_body_with_nothing_to_move_is_sent_byte_for_byte() -> None:
    """The hot path parses nothing."""
    body = (
        b'{ "contents" : [{"parts":[{"text":"\\"cachedContent\\" \xc5\xbe"}]}], "big": 123456789012345678901234567890}'
    )

    assert generated(body, WHERE) is body


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cachedContents/c", "projects/p/locations/r/cachedContents/c"),
        ("projects/q/locations/s/cachedContents/c", "projects/q/locations/s/cachedContents/c"),
    ],
)
def test_a_cache_is_a_resource_of_the_project(name: str, expected: str) -> None:
    """A full name stays."""
    assert moved({"cachedContent": name}) == {"cachedContent": expected}


def test_configuration_goes_where_vertex_has_it() -> None:
    """Next to what is there already."""
    image = {"aspectRatio": "1:1", "outputMimeType": "image/png", "imageOutputOptions": {"compressionQuality": 7}}

    assert moved({"generationConfig": {"modelSelectionConfig": {"a": 1}, "imageConfig": image}}) == {
        "generationConfig": {
            "modelConfig": {"a": 1},
            "imageConfig": {
                "aspectRatio": "1:1",
                "imageOutputOptions": {"compressionQuality": 7, "mimeType": "image/png"},
            },
        }
    }


@pytest.mark.parametrize("configuration", [None, "x", {"imageConfig": None}, {"imageConfig": "x"}])
def test_what_is_none_of_ours_stays(configuration: Any) -> None:
    """Integers of any size, and members of any type: Google says what is wrong with them."""
    body = {"generationConfig": configuration, "args": {"cachedContent": 10**30}}

    assert moved(body) == body


def test_a_wrapped_count_is_unwrapped() -> None:
    """Vertex counts the request itself."""
    request: dict[str, Any] = {"contents": [], "systemInstruction": {}}

    assert json.loads(counted(json.dumps({"generateContentRequest": {"model": "m", **request}}).encode())) == request
    assert counted(b'{"contents": []}') == b'{"contents": []}'
