"""What serves gRPC, by what is asked for and by what is installed."""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tollhouse_server.operations.checks import host
from tollhouse_server.operations.checks.terms import Outcome
from tollhouse_server.settings import Settings
from tollhouse_server.transport_choice import Choice, EnvoyMissing, chosen

from tests.unit.operations.test_host_checks import Place

pytestmark = pytest.mark.skipif(importlib.util.find_spec("pyvoy") is None, reason="the extra `envoy` is not installed")

OURS = Path(dataclasses.__file__)
"""A file that lies where Python's own library does."""


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have these be all that looks like Python's shared library on this host."""

    def be(*paths: Path) -> None:
        monkeypatch.setattr("find_libpython.candidate_paths", lambda: map(str, paths))

    return be


def test_envoy_serves_where_it_is_installed(libraries: Callable[..., None]) -> None:
    """And it is said which Envoy that is."""
    libraries(OURS)

    choice = chosen("auto")

    assert choice == chosen("envoy")
    assert choice.transport == "envoy"
    assert choice.why.startswith("Envoy 1.")


def test_grpcio_serves_where_it_is_asked_for(libraries: Callable[..., None]) -> None:
    """Whatever is installed; there is no more to say of it."""
    libraries(OURS)

    assert chosen("grpcio") == Choice(transport="grpcio", why="")


def test_grpcio_serves_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless Envoy is asked for: then nothing does."""
    monkeypatch.setitem(sys.modules, "pyvoy", None)

    assert (chosen("auto").transport, "pip install" in chosen("auto").why) == ("grpcio", True)
    with pytest.raises(EnvoyMissing, match="pip install"):
        chosen("envoy")


def test_the_library_of_another_python_is_none(libraries: Callable[..., None], tmp_path: Path) -> None:
    """It has the same name and may have other modules."""
    other = tmp_path / OURS.name
    other.touch()
    libraries(OURS.parent / "missing.so", other)

    assert (chosen("auto").transport, "libpython" in chosen("auto").why) == ("grpcio", True)


@pytest.mark.parametrize(
    ("wanted", "has_library", "outcome"),
    [
        ("auto", True, Outcome.OK),
        ("auto", False, Outcome.WARNING),
        ("envoy", False, Outcome.FAILURE),
        ("grpcio", False, Outcome.OK),
    ],
)
async def test_doctor_says_what_serves(
    libraries: Callable[..., None], wanted: str, has_library: bool, outcome: Outcome
) -> None:
    """Whoever does without Envoy is warned until he says that he means to."""
    libraries(*[OURS] * has_library)

    found = await host.transport(Place(Settings(transport=wanted)))  # type: ignore[arg-type]

    assert found.outcome is outcome
    assert ("TOLLHOUSE_TRANSPORT=grpcio" in found.advice) == (outcome is not Outcome.OK)
