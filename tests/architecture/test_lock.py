"""The lock: everything pinned and hashed, nothing that says where it came from."""

import re
import tomllib

from tests.architecture.tree import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def canonical(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def test_lock_is_pins_with_hashes_and_nothing_else() -> None:
    """No address, no index, no editable path: what is installed is what was hashed, wherever it is fetched."""
    rest = re.sub(r"^\s+# .*\n", "", ENTRY.sub("", LOCK), flags=re.MULTILINE)

    assert rest.strip() == ""
    assert "://" not in LOCK
    assert len(ENTRY.findall(LOCK)) > 50


def test_lock_has_every_dependency_of_the_project() -> None:
    """A dependency that was added without `make lock` would be missing on the next machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra

    locked = {name for name, _, _ in ENTRY.findall(LOCK)}

    assert {canonical(requirement) for requirement in wanted} - locked == set()
