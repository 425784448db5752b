"""Upstream keys: rotation is watched to its end, destroying asks, secrets never stand on the command line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tollhouse.admin.v1 import accounts_pb2
from tollhouse.admin.v1 import upstream_keys_pb2 as pb
from tollhouse_admin import key_rotations

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

KEY = "accounts/main/upstreamKeys/first"
NAME = "accounts/main/keyRotations/rot-20261121-0a1b2c3d"
STARTED = pb.KeyRotation(name=NAME, state=pb.KeyRotation.STATE_RUNNING, step=pb.KeyRotation.STEP_STAGE, old_key=KEY)


def at(step: int, state: int = pb.KeyRotation.STATE_RUNNING, error: str = "") -> pb.KeyRotation:
    return pb.KeyRotation(name=NAME, old_key=KEY, step=step, state=state, error=error)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_rotations, "POLL_SECONDS", 0.0)


def test_waiting_tells_of_each_step_once_and_shows_the_end(server: CannedServer, run: Run) -> None:
    """Progress goes to stderr, the result alone to stdout."""
    server.answers["RotateUpstreamKey"] = STARTED
    server.answers["GetKeyRotation"] = [
        at(pb.KeyRotation.STEP_PROBE),
        at(pb.KeyRotation.STEP_PROBE),
        at(pb.KeyRotation.STEP_DRAIN),
        at(pb.KeyRotation.STEP_DESTROY, pb.KeyRotation.STATE_SUCCEEDED),
    ]

    result = run("upstream-keys", "rotate", "first", "-a", "main", "--wait", "-o", "json")

    assert result.code == 0
    assert json.loads(result.out)["state"] == "STATE_SUCCEEDED"
    assert [line.rpartition(" ")[2] for line in result.err.splitlines() if NAME in line] == [
        *("stage", "probe", "drain", "succeeded")
    ]


def test_a_rotation_that_is_rolled_back_fails_the_command_that_waits(server: CannedServer, run: Run) -> None:
    """A script sees it by the exit status, a person reads why."""
    server.answers["RotateUpstreamKey"] = STARTED
    server.answers["GetKeyRotation"] = at(
        pb.KeyRotation.STEP_ROLL_BACK, pb.KeyRotation.STATE_FAILED, "the upstream refuses the new key"
    )

    result = run("upstream-keys", "rotate", KEY, "--wait")

    assert result.code == 1
    assert "the upstream refuses the new key" in result.err


def test_revoking_needs_a_yes_and_can_be_tried_dry(server: CannedServer, run: Run) -> None:
    """Nothing is sent without a confirmation."""
    server.answers["RevokeUpstreamKey"] = STARTED

    refused = run("upstream-keys", "revoke", "first", "-a", "main")
    calls_before = len(server.received)
    dry = run("upstream-keys", "revoke", "first", "-a", "main", "--dry-run")
    was_dry = server.last.request.validate_only
    done = run("upstream-keys", "revoke", "first", "-a", "main", "--yes")

    assert (refused.code, calls_before) == (2, 0)
    assert (dry.code, was_dry) == (0, True)
    assert done.code == 0
    assert (server.last.request.name, server.last.request.validate_only) == (KEY, False)


def test_status_shows_ages_of_all_accounts(server: CannedServer, run: Run) -> None:
    """Without --account it goes through every account there is."""
    key = pb.UpstreamKey(name=KEY, state=pb.UpstreamKey.STATE_ACTIVE, rotation=NAME)
    key.create_time.FromDatetime(datetime.now(UTC) - timedelta(days=45, hours=1))
    key.unusual_uses.add(metric=pb.UnusualKeyUse.METRIC_CALLS, amount=5000, usual_amount=10)
    server.answers["ListAccounts"] = accounts_pb2.ListAccountsResponse(
        accounts=[accounts_pb2.Account(name="accounts/main")]
    )
    server.answers["ListUpstreamKeys"] = pb.ListUpstreamKeysResponse(upstream_keys=[key])

    result = run("upstream-keys", "status", "-o", "csv")

    header, row = result.out.splitlines()
    assert header == (
        "name,state,vault_version,fingerprint,age_days,rotation_due_time,last_use_time,rotation,unusual_uses"
    )
    assert row == f"{KEY},active,0,,45,,,rot-20261121-0a1b2c3d,1"


def test_a_policy_is_set_with_a_credential_from_a_file(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """The mask names what was typed; the credential shows nowhere."""
    file = tmp_path / "credential.json"
    file.write_text('{"private_key": "canary"}')
    server.answers["UpdateKeyPolicy"] = pb.KeyPolicy(name="accounts/main/keyPolicy")

    result = run(
        *("upstream-keys", "policy", "set", "-a", "main", "--provider", "google", "--period", "45"),
        *("--credential-file", str(file)),
    )

    request = server.last.request
    assert result.code == 0
    assert list(request.update_mask.paths) == ["provider", "rotation_period_days"]
    assert (request.key_policy.provider, request.key_policy.rotation_period_days) == (pb.KEY_PROVIDER_GOOGLE, 45)
    assert request.provider_credential == '{"private_key": "canary"}'
    assert "canary" not in result.out + result.err


def test_a_key_can_be_added_in_place_of_another(server: CannedServer, run: Run) -> None:
    """From stdin, as always."""
    server.answers["AddUpstreamKey"] = pb.UpstreamKey(name="accounts/main/upstreamKeys/second")

    run("upstream-keys", "add", "second", "-a", "main", "--replaces", KEY, "--key-file", "-", stdin="AIza-new\n")

    assert (server.last.request.secret, server.last.request.replaces) == ("AIza-new", "first")
