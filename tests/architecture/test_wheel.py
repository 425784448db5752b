"""The wheel holds what an installed Tollhouse needs, and a calling service needs little of it."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, tracked_files

SHIPPED = {"protos/tollhouse": "", "protos/buf": "", "server/tollhouse_server": "", "admin_cli/tollhouse_admin": ""}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = target.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_has_every_file_of_the_source_roots(wheel_names: set[str]) -> None:
    """Catalogue, policies, protos and migrations are data, and travel with the code that reads them."""
    roots = [ROOT / name for name in SHIPPED]
    wanted = {
        path.relative_to(root.parent).as_posix()
        for path in tracked_files()
        for root in roots
        if path.is_relative_to(root)
    }

    assert wanted - wheel_names == set()
    assert {Path(name).suffix for name in wheel_names} >= {".py", ".pyi", ".proto", ".mako", ".hcl"}


def test_wheel_has_typing_markers_and_nothing_of_the_tests(wheel_names: set[str]) -> None:
    """A calling service type-checks against the stubs."""
    tops = {name.split("/")[0] for name in wheel_names if ".dist-info/" not in name}

    assert {"tollhouse/py.typed", "buf/py.typed"} <= wheel_names
    assert tops == {"tollhouse", "buf", "tollhouse_server", "tollhouse_admin"}


def test_stubs_import_with_the_base_dependencies_alone() -> None:
    """Who only calls Tollhouse installs gRPC and protobuf, no server."""
    program = """
import importlib, pkgutil, sys
import tollhouse
for module in pkgutil.walk_packages(tollhouse.__path__, "tollhouse."):
    importlib.import_module(module.name)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "protos", capture_output=True, text=True, check=True
    ).stdout.split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert {"grpc", "google", "tollhouse", "buf"} <= set(loaded)
    assert {"tollhouse_server", "aiohttp", "sqlalchemy", "hvac", "pydantic", "protovalidate"} & set(loaded) == set()
    assert [name.split(">")[0] for name in project["dependencies"]] == [
        "grpcio",
        "protobuf",
        "googleapis-common-protos",
    ]
