"""Another gRPC implementation than Python's: @grpc/grpc-js, from the .proto files alone."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import google.rpc
import pytest

from tests.drivers.stack import RunningStack

_ROOT = Path(__file__).parents[2]
_NODE = _ROOT / "tests" / "node"
_GOOGLE_PROTOS = Path(next(iter(google.rpc.__path__))).parents[1]
_KINDS = ("text", "image in", "image out", "tools", "structured output")

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="needs Node and npm for @grpc/grpc-js"
)


@pytest.fixture(scope="module")
def report(running_stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the Node program says of one call of each kind."""
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "caller.js"):
        shutil.copy(_NODE / name, directory)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], directory, {})
    arguments = ["node", "caller.js", running_stack.grpc, str(_ROOT / "protos"), str(_GOOGLE_PROTOS)]
    output = _run(arguments, directory, {"TOLLHOUSE_API_KEY": running_stack.demo_api_key})
    found: dict[str, Any] = json.loads(output)
    return found


def _run(arguments: list[str], directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        arguments,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("way", ["unary", "stream"])
@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_of_call_answers_in_another_language(report: dict[str, Any], way: str, kind: str) -> None:
    """Content of the right sort, a cost, and the booking's project."""
    answer = report[way][kind]

    assert answer["project"] == "tenants/demo/departments/research/projects/assistant"
    assert answer["cost"]["nanos"] > 0
    assert answer["messages"] > 1 if way == "stream" else answer["messages"] == 1
    match kind:
        case "image out":
            assert answer["image"] == "PNG"
        case "tools":
            assert answer["functions"] == ["get_weather"]
        case "structured output":
            assert "colour" in json.loads(answer["text"])
        case _:
            assert answer["text"]


def test_embeddings_answer_in_another_language(report: dict[str, Any]) -> None:
    """Two contents, two vectors."""
    assert len(report["embeddings"]) == 2
    assert min(report["embeddings"]) > 100


def test_errors_carry_their_reason_in_another_language(report: dict[str, Any]) -> None:
    """google.rpc.Status travels in the trailers that every implementation reads."""
    assert report["error"] == {"code": 5, "details": ["MODEL_UNKNOWN"]}
