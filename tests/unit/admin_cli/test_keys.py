"""A new API key is shown once, or goes to a file that is the user's alone."""

import json
import stat
from pathlib import Path

import pytest
from tollhouse.admin.v1 import api_keys_pb2

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

PROJECT = "tenants/acme/departments/research/projects/chat"
SECRET = "th_test_abcdefgh2345_newsecret"
CREATED = api_keys_pb2.CreateApiKeyResponse(
    api_key=api_keys_pb2.ApiKey(name=f"{PROJECT}/apiKeys/abcdefgh2345"), secret=SECRET
)
CREATE = ["keys", "create", "--principal", "bot", "-t", "acme", "-d", "research", "-p", "chat"]


def test_the_new_key_is_in_the_result(server: CannedServer, run: Run) -> None:
    """Once, as the server keeps only a digest."""
    server.answers["CreateApiKey"] = CREATED

    result = run(*CREATE, "--environment", "test", "--expires", "2026-12-31", "-o", "json")

    request = server.last.request
    assert json.loads(result.out)["secret"] == SECRET
    assert SECRET not in result.err
    assert request.parent == PROJECT
    assert request.api_key.principal == "tenants/acme/principals/bot"
    assert request.api_key.environment == api_keys_pb2.ApiKey.ENVIRONMENT_TEST
    assert request.api_key.expire_time.ToJsonString() == "2026-12-31T00:00:00Z"


def test_the_new_key_goes_to_a_private_file_instead(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """Then it is not on the terminal."""
    server.answers["CreateApiKey"] = CREATED
    file = tmp_path / "key"

    result = run(*CREATE, "--key-out", str(file))

    assert file.read_text() == f"{SECRET}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SECRET not in result.out + result.err


def test_a_file_that_exists_stops_the_command_before_a_key_is_made(
    server: CannedServer, run: Run, tmp_path: Path
) -> None:
    """Otherwise the key would be lost."""
    server.answers["CreateApiKey"] = CREATED
    file = tmp_path / "key"
    file.write_text("mine")

    result = run(*CREATE, "--key-out", str(file))

    assert result.code == 2
    assert file.read_text() == "mine"
    assert server.received == []


def test_no_empty_file_stays_when_no_key_was_made(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """A refused command leaves nothing behind."""
    file = tmp_path / "key"

    result = run(*CREATE, "--key-out", str(file))

    assert result.code == 1
    assert "UNIMPLEMENTED" in result.err
    assert not file.exists()


def test_revoking_needs_the_project_only_for_an_id(server: CannedServer, run: Run) -> None:
    """A full name says it all."""
    server.answers["RevokeApiKey"] = CREATED.api_key

    run("keys", "revoke", f"{PROJECT}/apiKeys/abcdefgh2345", "--yes")
    by_name = server.last.request.name
    run("keys", "revoke", "abcdefgh2345", "-t", "acme", "-d", "research", "-p", "chat", "--yes")

    assert by_name == server.last.request.name == f"{PROJECT}/apiKeys/abcdefgh2345"


@pytest.mark.parametrize(
    "command",
    [
        ("keys", "create", "--principal", "ann"),
        ("keys", "list"),
        ("keys", "revoke", "abcdefgh2345", "--yes"),
        ("client-identities", "create", "crm-pod", "--principal", "ann", "--spiffe-id", "spiffe://acme.example/crm"),
    ],
)
def test_a_department_without_a_project_is_refused(server: CannedServer, run: Run, command: tuple[str, ...]) -> None:
    """It would be a key, or an identity, of the tenant."""
    result = run(*command, "-t", "acme", "-d", "research")

    assert (result.code, server.received) == (2, [])
    assert "--department needs --project" in result.err
