"""Devices: key pairs in files, registration without private keys, receipts signed and sent in parts."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import devices_pb2 as admin
from tollhouse.admin.v1 import usage_reports_pb2 as reports
from tollhouse.v1 import devices_pb2 as pb
from tollhouse.v1 import usage_pb2

from tests.drivers.devices import PREFIX
from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

PHONE = "tenants/acme/devices/phone"
CHAT = "tenants/acme/departments/research/projects/chat"
DEVICE = admin.Device(name=PHONE, project=CHAT, state=admin.Device.STATE_ACTIVE)
ACCEPTED = pb.ReceiptOutcome(
    verdict=pb.RECEIPT_VERDICT_ACCEPTED,
    avoided_cost=Money(currency_code="USD", nanos=500),
    avoided_model="gemini-3.5-flash-lite",
)
LINE: dict[str, Any] = {"startedAt": "2026-11-21T09:30:00Z", "model": "gemini-nano-v3", "inputTokens": 7}


def accept(request: pb.ReportOnDeviceUsageRequest) -> pb.ReportOnDeviceUsageResponse:
    return pb.ReportOnDeviceUsageResponse(outcomes=[ACCEPTED] * len(request.receipts))


def lines(count: int, **fields: Any) -> str:
    return "\n".join(json.dumps(LINE | fields | {"sequence": number}) for number in range(1, count + 1))


@pytest.fixture
def key_file(run: Run, home: Path) -> Path:
    """A key pair, `phone.pem` and `phone.pem.pub`."""
    assert run("devices", "keygen", "phone.pem").code == 0
    return home / "phone.pem"


def test_a_key_pair_is_two_files_and_the_private_one_is_the_users_alone(run: Run, home: Path) -> None:
    """What is printed tells nothing; what exists is never written over."""
    made = run("devices", "keygen", "phone.pem", "-o", "json")
    again = run("devices", "keygen", "phone.pem")
    (home / "other.pem.pub").touch()
    blocked = run("devices", "keygen", "other.pem")

    assert stat.S_IMODE((home / "phone.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in made.out + made.err
    assert json.loads(made.out)["publicKeyFingerprint"].startswith("SHA256:")
    assert (again.code, blocked.code, (home / "other.pem").exists()) == (2, 2, False)


def test_a_device_is_registered_by_its_public_key_and_never_by_the_private_one(
    server: CannedServer, run: Run, key_file: Path
) -> None:
    """A slip of one file name must not carry a private key away."""
    server.answers["CreateDevice"] = DEVICE
    place = ("--project", CHAT, "--max-daily-tokens", "9")

    refused = run("devices", "register", "phone", *place, "--public-key-file", str(key_file))
    calls_before = len(server.received)
    done = run("devices", "register", "phone", *place, "--public-key-file", f"{key_file}.pub")

    assert (refused.code, calls_before) == (2, 0)
    assert done.code == 0
    sent = server.last.request
    assert (sent.parent, sent.device_id, sent.device.project) == ("tenants/acme", "phone", CHAT)
    assert (sent.device.max_daily_tokens, sent.device.max_daily_receipts) == (9, 0)
    assert isinstance(load_pem_public_key(sent.device.public_key), Ed25519PublicKey)


def test_receipts_are_signed_and_sent_a_thousand_at_a_time(server: CannedServer, run: Run, key_file: Path) -> None:
    """What is signed is what is sent; an id that a line leaves out is the same whenever it is sent again."""
    server.answers["ReportOnDeviceUsage"] = accept
    arguments = ("devices", "report", "--key-file", str(key_file), "--file", "-", "--device", PHONE, "--project", CHAT)

    first = run(*arguments, stdin=lines(1_001))
    run(*arguments, "--dry-run", stdin=lines(1))

    assert (first.code, len(first.out.splitlines())) == (0, 1_002)
    assert "1001 accepted, 0 booked before, 0 refused; $0.0005005 avoided" in first.err
    whole, rest, dry = (one.request for one in server.received)
    assert (len(whole.receipts), len(rest.receipts), whole.parent) == (1_000, 1, CHAT)
    assert (whole.validate_only, dry.validate_only) == (False, True)
    assert dry.receipts[0] == whole.receipts[0]
    said = pb.OnDeviceReceipt.FromString(rest.receipts[0].receipt)
    assert (said.device, said.sequence, said.input_tokens, said.model) == (PHONE, 1_001, 7, "gemini-nano-v3")
    public = load_pem_public_key(Path(f"{key_file}.pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    for one in (whole.receipts[0], rest.receipts[0]):
        public.verify(one.signature, PREFIX + one.receipt)


def test_refused_receipts_fail_the_command_and_are_shown_with_their_reasons(
    server: CannedServer, run: Run, key_file: Path
) -> None:
    """A script sees it by the exit status; JSON has the numbers of the receipts."""
    refused = pb.ReceiptOutcome(
        verdict=pb.RECEIPT_VERDICT_REFUSED, refusal=pb.RECEIPT_REFUSAL_TOO_OLD, message="More than 35 days ago."
    )
    server.answers["ReportOnDeviceUsage"] = pb.ReportOnDeviceUsageResponse(outcomes=[ACCEPTED, refused])
    arguments = ("devices", "report", "--key-file", str(key_file), "--file", "-", "--device", PHONE)

    table = run(*arguments, stdin=lines(2))
    as_json = run(*arguments, "-o", "json", stdin=lines(2))

    assert (table.code, "too_old" in table.out) == (5, True)
    assert "RECEIPTS_REFUSED: 1 of 2" in table.err
    assert [(one["sequence"], one["verdict"]) for one in json.loads(as_json.out)] == [
        (1, "RECEIPT_VERDICT_ACCEPTED"),
        (2, "RECEIPT_VERDICT_REFUSED"),
    ]
    assert not server.last.request.HasField("parent")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no receipts"),
        ("{", "Line 1 is not a receipt"),
        ('{"sequence": "x"}', "Line 1 is not a receipt"),
        ("[1]", "Line 1 is not a receipt"),
        ('{"sequense": 1}', "Line 1 is not a receipt"),
        (lines(1) + "\n\n{}", "Line 3 lacks sequence"),
        ('{"sequence": 1}', "Line 1 lacks startedAt"),
    ],
)
def test_a_line_that_is_no_receipt_is_told_before_anything_is_sent(
    server: CannedServer, run: Run, key_file: Path, text: str, said: str
) -> None:
    """With its number."""
    result = run("devices", "report", "--key-file", str(key_file), "--file", "-", "--device", PHONE, stdin=text)

    assert (result.code, said in result.err, server.received) == (2, True, []), result.err


def test_revoking_asks_and_a_department_can_be_named(server: CannedServer, run: Run) -> None:
    """Who administers a department only says so."""
    server.answers["GetDevice"] = DEVICE
    server.answers["RevokeDevice"] = DEVICE
    server.answers["ListDevices"] = admin.ListDevicesResponse(devices=[DEVICE])

    refused = run("devices", "revoke", "phone", "-t", "acme")
    calls_before = len(server.received)
    done = run("devices", "revoke", "phone", "-t", "acme", "-d", "research", "--yes")
    revoked = server.last.request
    listed = run("devices", "list", "-t", "acme", "-d", "research", "-o", "json")

    assert (refused.code, calls_before, done.code) == (2, 0, 0)
    assert (revoked.name, revoked.scope) == (PHONE, "tenants/acme/departments/research")
    assert server.last.request.scope == "tenants/acme/departments/research"
    assert [one["name"] for one in json.loads(listed.out)] == [PHONE]


def test_usage_and_reports_show_devices_in_a_section_of_their_own(server: CannedServer, run: Run) -> None:
    """Where there is nothing, nothing is said; in CSV, which has one table, a line on stderr."""
    use = pb.OnDeviceUsage(
        receipts=2,
        requests=30,
        input_tokens=400,
        avoided_cost=Money(currency_code="USD", nanos=1_500),
        unpriced_requests=4,
    )
    server.answers["GetUsageSummary"] = [
        *(usage_pb2.UsageSummary(parent=CHAT, on_device=use),) * 2,
        usage_pb2.UsageSummary(parent=CHAT),
    ]
    server.answers["GetMonthReport"] = reports.MonthReport(parent="tenants/acme", month="2026-11", on_device=use)

    table, csv, without = run("usage"), run("usage", "-o", "csv"), run("usage")
    month = run("report", "month", "-t", "acme")

    for shown in (table, month):
        assert "on devices, in no sum above:" in shown.out
        assert "$0.0000015" in shown.out
        assert "4 requests on devices had no price" in shown.err
    assert "on devices" not in csv.out
    assert "30 requests at no cost, $0.0000015 avoided" in csv.err
    assert "on devices" not in without.out + without.err
