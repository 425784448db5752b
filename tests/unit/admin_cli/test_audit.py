"""`tollhouse audit verify`, and files of trails that go on where they end."""

import json
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tollhouse.admin.v1 import audit_pb2 as pb
from tollhouse_admin.__main__ import execute
from tollhouse_admin.audit_files import TrailFile
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_server.audit.anchor import Anchor

from tests.drivers.audit import KEY, anchor_of, export_line, links
from tests.drivers.receipts import KeyInMemory
from tests.unit.admin_cli.canned import CannedServer, refusal
from tests.unit.admin_cli.conftest import Run


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """An export of 30 events, an anchor that knows 20 of them, and the keys; as arguments."""
    key, trail = KeyInMemory(), list(links("acme", 30))
    (tmp_path / "acme.jsonl").write_bytes(b"".join(export_line(link) for link in trail))
    (tmp_path / "anchor.jsonl").write_bytes(b"".join(anchor_of("acme", trail, [10, 20], key)))
    Anchor(tmp_path).write_keys(KEY, {1: key.versions[0].public_key().public_bytes_raw()})
    return [
        *("audit", "verify", str(tmp_path / "acme.jsonl")),
        *("--anchor", str(tmp_path / "anchor.jsonl"), "--keys", str(tmp_path / "keys.json")),
    ]


def test_a_genuine_export_is_verified_without_a_server(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and how far checkpoints vouch for it."""
    assert execute([*files, "-o", "json"]) == ExitCode.OK

    told = capsys.readouterr()
    assert json.loads(told.out) == {
        **{"tenant": "acme", "events": 30, "first_sequence": 1, "last_sequence": 30},
        **{"signed_sequence": 20, "checkpoints": 2, "findings": []},
    }
    assert "last 10 events" in told.err


def test_a_changed_export_fails_and_names_the_place(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1."""
    export = Path(files[2])
    export.write_bytes(export.read_bytes().replace(b"principals/jo", b"principals/al", 1))

    assert execute(files) == ExitCode.GENERAL

    told = capsys.readouterr()
    assert "line 1 " in told.out
    assert "AUDIT_NOT_GENUINE" in told.err


def test_a_key_that_did_not_sign_is_of_no_use(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoints are not genuine under it."""
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    Anchor(Path(files[-1]).parent).write_keys(KEY, {1: other})

    assert execute(files) == ExitCode.GENERAL

    assert "is not what was signed" in capsys.readouterr().out


def test_a_part_is_verified_when_it_is_said_to_be_one(files: list[str]) -> None:
    """From one event to another."""
    export = Path(files[2])
    export.write_bytes(b"".join(export.read_bytes().splitlines(keepends=True)[4:15]))

    assert execute(files) == ExitCode.GENERAL
    assert execute([*files, "--from", "5", "--to", "15"]) == ExitCode.OK


def test_files_that_are_something_else_are_refused(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, whatever they are."""
    assert execute([*files[:-1], str(Path(files[2]))]) == ExitCode.USAGE
    assert execute([*files[:2], "/nowhere", *files[3:]]) == ExitCode.USAGE

    assert "Traceback" not in capsys.readouterr().err


def test_an_export_goes_on_behind_the_last_whole_event(tmp_path: Path) -> None:
    """What was being written when it broke off is cut off."""
    lines = [export_line(link).decode() for link in links("acme", 700)]
    file = TrailFile(tmp_path / "deep" / "acme.jsonl")
    assert file.resume("acme") == 0
    file.append([line.rstrip("\n") for line in lines])
    with file.path.open("ab") as broken:
        broken.write(lines[0][:500].encode())

    assert file.resume("acme") == 700

    assert file.path.read_text() == "".join(lines)
    with pytest.raises(Failure):
        TrailFile(file.path).resume("bolt")


@pytest.mark.parametrize("content", ["Dear all,\nnothing happened.\n", "Dear all", "Dear all,\nnothing"])
def test_a_file_that_is_no_trail_is_left_alone(tmp_path: Path, content: str) -> None:
    """Nothing of it is lost, whether its last line is whole or not."""
    file = tmp_path / "letter.txt"
    file.write_text(content)

    with pytest.raises(Failure):
        TrailFile(file).resume("acme")

    assert file.read_text() == content


def test_a_followed_trail_is_csv_with_one_header(server: CannedServer, run: Run) -> None:
    """However many pieces it comes in; until the server has nothing more to say."""
    pieces = [pb.TailAuditEventsResponse(audit_events=[pb.AuditEvent(sequence=number)]) for number in (1, 2)]
    denied = refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "No longer.")
    server.answers["TailAuditEvents"] = [*pieces, denied]

    result = run("audit", "tail", "-t", "acme", "-o", "csv")

    assert result.code == ExitCode.DENIED
    assert [line.split(",")[0] for line in result.out.splitlines()] == ["sequence", "1", "2"]
