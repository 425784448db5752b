"""The ceiling bounds what the simulator counts, so that load tests against it can hold strict budgets."""

import base64
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.pricing.ceiling import ceiling
from tollhouse_server.routing.catalogue_file import packaged_catalogue
from tollhouse_server.simulator.models import Model, ModelList
from tollhouse_server.simulator.tokens import prompt_tokens

from .builders import BOUNDS, prices_of

SIMULATED = ModelList.load()


def wav(rate: int, seconds: int) -> bytes:
    header = b"RIFF\x00\x00\x00\x00WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return header + b"\0" * (2 * rate * seconds)


MEDIA = {
    "image/png": [b"\x89PNG" + b"\0" * 5_000],
    "image/jpeg": [b""],
    "audio/wav": [wav(8_000, 3), wav(48_000, 1)],
    "audio/mpeg": [b"ID3" + b"\0" * 48_000],
    "audio/flac": [b"fLaC" + b"\0" * 100],
    "video/mp4": [b"\0" * 300_000],
    "application/pdf": [b"%PDF" + b"/Type /Page " * 40],
    "text/plain": ["naïve – 日本".encode()],
}
texts = st.text(max_size=100).map(lambda text: {"text": text})
blobs = st.sampled_from(sorted(MEDIA)).flatmap(
    lambda kind: st.sampled_from(MEDIA[kind]).map(
        lambda data: {"inlineData": {"mimeType": kind, "data": base64.b64encode(data).decode()}}
    )
)
arguments = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(-(2**53), 2**53), max_size=3)
calls = arguments.map(lambda args: {"functionCall": {"name": "f", "args": args}})
answers = st.tuples(arguments, st.lists(blobs, max_size=1)).map(
    lambda pair: {"functionResponse": {"name": "f", "response": pair[0], "parts": pair[1]}}
)
contents = st.lists(texts | blobs | calls | answers, max_size=4).map(lambda parts: {"role": "user", "parts": parts})
declarations = arguments.map(lambda extra: {"name": "f", "description": str(extra)})


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.8-flash", "gemini-4-argon"])
@given(st.lists(contents, min_size=1, max_size=3), contents, st.lists(declarations, max_size=2))
def test_the_simulator_never_counts_more_than_the_bound(
    model: str, sent: list[dict[str, Any]], system: dict[str, Any], functions: list[dict[str, Any]]
) -> None:
    """Texts in any script, every kind of media, tools and their answers."""
    request = {"contents": sent, "systemInstruction": system, "tools": [{"functionDeclarations": functions}]}

    most = ceiling(prices_of(model), BOUNDS, request, request_bytes=len(orjson.dumps(request)), output_cap_tokens=100)

    assert prompt_tokens(request, _simulated(model)).total() <= most.input_tokens


def _simulated(model: str) -> Model:
    found = SIMULATED.get(model)
    assert found is not None
    return found


def test_the_simulator_knows_every_gemini_model_of_the_catalogue_with_its_limits() -> None:
    """A bound of the catalogue that is below the simulator's would be no bound; Veo and Gemma are not simulated."""
    for entry in packaged_catalogue().models:
        if entry.model.startswith("gemini"):
            assert _simulated(entry.model).output_token_limit <= max(entry.output_token_limit, 1), entry.model
