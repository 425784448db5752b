"""What can be known of the deployment files without running them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tollhouse_server.documents.pdf import CHINESE
from tollhouse_server.settings import Settings

from tests.architecture.tree import ROOT

DEPLOY = ROOT / "deploy"
TOOLS = Path(sys.executable).parent


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_compose_file_keeps_to_the_published_schema() -> None:
    """A key that Compose does not know is refused at start."""
    command = [str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]

    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_dockerfile_is_clean_for_hadolint() -> None:
    """Pinned, non-root, no cache left in a layer."""
    checked = subprocess.run([TOOLS / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_the_image_has_a_font_with_the_letters_of_chinese() -> None:
    """Debian's package of the font that a PDF asks for first, in the stage that runs and not in the one that builds."""
    *_, last_stage = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")

    assert CHINESE[0] == "Noto Sans CJK SC"
    assert re.search(r"apt-get install [^\n]*\bfonts-noto-cjk=", last_stage)


def test_every_file_that_compose_mounts_exists() -> None:
    """Docker makes an empty folder of a missing file, and the server starts with it."""
    mounted = [
        volume.split(":")[0]
        for service in compose()["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    ]

    assert mounted
    assert [name for name in mounted if not (DEPLOY / name).exists()] == []


def test_every_setting_in_deployment_files_is_a_setting_of_the_server() -> None:
    """The server refuses variables that it does not know."""
    known = {f"TOLLHOUSE_{name.upper()}" for name in Settings.model_fields}
    services = compose()["services"]
    in_compose = set(services["gateway"]["environment"]) | set(services["migrate"]["environment"])
    in_image = set(re.findall(r"\bTOLLHOUSE_[A-Z_]+", (DEPLOY / "Dockerfile").read_text()))

    assert in_compose | in_image
    assert (in_compose | in_image) - known == set()


def test_every_file_that_the_image_copies_is_in_the_build_context() -> None:
    """`.dockerignore` lets through what is named, and only that."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()
    }
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}

    assert copied
    assert copied - allowed == set()
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_prometheus_looks_where_the_gateway_serves() -> None:
    """The port of the scrape is the port of the image."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())

    targets = [target for job in config["scrape_configs"] for one in job["static_configs"] for target in one["targets"]]

    assert targets == [f"gateway:{Settings.model_fields['metrics_port'].default}"]


def test_no_image_is_taken_by_a_moving_tag() -> None:
    """`latest` is another server tomorrow."""
    images = [service["image"] for service in compose()["services"].values() if "image" in service]

    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []
