"""On-device use from end to end: policy, route, signed receipts, usage; and what is not genuine counts nothing."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import grpc
import pytest
from tollhouse.v1 import devices_pb2 as pb
from tollhouse.v1 import generation_pb2, generation_pb2_grpc, usage_pb2, usage_pb2_grpc

from tests.drivers.callers import bearer
from tests.drivers.command_line import CommandLine, Company
from tests.drivers.devices import FieldDevice
from tests.drivers.stack import RunningStack

_LABELS = {"data": "health"}
_RULE = {"name": "health", "tiers": ["flash"], "labels": _LABELS}
_IN_FORCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class App:
    """An app of a company, with devices that it reports for."""

    company: Company
    channel: grpc.Channel = field(repr=False)

    @property
    def project(self) -> str:
        """The project that pays."""
        return f"{self.company.department}/projects/chat"

    def device(self, name: str) -> FieldDevice:
        """Return a device of the company that is still to be registered."""
        return FieldDevice(f"tenants/{self.company.tenant}/devices/{name}")

    def wait_for_verdict(self, verdict: "generation_pb2.RouteVerdict.ValueType") -> generation_pb2.ResolveRouteResponse:
        """Ask where a call about health data should go until the policy is in force."""
        stub = generation_pb2_grpc.GenerationServiceStub(self.channel)
        request = generation_pb2.ResolveRouteRequest(tier="flash", labels=_LABELS)
        deadline = time.monotonic() + _IN_FORCE_SECONDS
        while time.monotonic() < deadline:
            answer = stub.ResolveRoute(request, metadata=bearer(self.company.key))
            if answer.verdict == verdict:
                return answer
        raise AssertionError("the policy was never in force")

    def report(self, *receipts: pb.SignedReceipt) -> pb.ReportOnDeviceUsageResponse:
        """Report with the key of the app's project."""
        stub = generation_pb2_grpc.GenerationServiceStub(self.channel)
        request = pb.ReportOnDeviceUsageRequest(receipts=receipts)
        return stub.ReportOnDeviceUsage(request, metadata=bearer(self.company.key), timeout=30)

    def usage(self) -> usage_pb2.UsageSummary:
        """Return the summary of the app's project."""
        stub = usage_pb2_grpc.UsageServiceStub(self.channel)
        return stub.GetUsageSummary(usage_pb2.GetUsageSummaryRequest(), metadata=bearer(self.company.key))


@pytest.fixture
def app(running_stack: RunningStack, company: Company) -> Iterator[App]:
    """The app of a new company."""
    with grpc.insecure_channel(running_stack.grpc) as channel:
        yield App(company, channel)


def register(tollhouse: CommandLine, app: App, device: FieldDevice, directory: Path) -> None:
    """Register a device by its public key, as 32 bytes."""
    file = directory / "key.pub"
    file.write_bytes(device.public_key)
    tollhouse.ok("devices", "register", device.name, "--project", app.project, "--public-key-file", str(file))


def test_what_policy_keeps_on_the_device_is_reported_at_no_cost(
    tollhouse: CommandLine, app: App, tmp_path: Path
) -> None:
    """ResolveRoute says so, the device signs what it did, usage shows it with cost 0 and what was avoided."""
    policy = json.dumps({"onDeviceRules": [_RULE]})
    tollhouse.ok("routes", "policy", "set", "--tenant", app.company.tenant, "--from-file", "-", stdin=policy)
    limit = ("limits", "create", "none-at-all", "--tenant", app.company.tenant)
    tollhouse.ok(*limit, "--metric", "requests", "--window", "day", "--amount", "0")
    phone = app.device("phone")
    register(tollhouse, app, phone, tmp_path)

    route = app.wait_for_verdict(generation_pb2.ROUTE_VERDICT_ON_DEVICE)
    outcome = app.report(phone.signed(labels=_LABELS, requests=3)).outcomes[0]

    assert route.on_device_rule == "health"
    assert (outcome.verdict, outcome.avoided_model) == (pb.RECEIPT_VERDICT_ACCEPTED, "gemini-3.8-flash")
    usage = app.usage()
    assert (usage.total.calls, usage.total.cost.units, usage.total.cost.nanos) == (0, 0, 0)
    assert (usage.on_device.requests, usage.on_device.input_tokens) == (3, 100)
    assert usage.on_device.avoided_cost == outcome.avoided_cost
    assert outcome.avoided_cost.nanos > 0
    shown = tollhouse("usage", key=app.company.key)
    month = tollhouse.json("report", "month", "--tenant", app.company.tenant)
    assert "on devices, in no sum above:" in shown.stdout
    assert (month["onDevice"]["requests"], "cost" in month["totals"]) == ("3", True)
    assert Decimal(month["totals"]["cost"].get("nanos", 0)) == 0
    assert tollhouse("ledger", "verify", "--tenant", app.company.tenant).returncode == 0


def test_forged_replayed_and_foreign_receipts_count_nothing(
    tollhouse: CommandLine, app: App, running_stack: RunningStack, tmp_path: Path
) -> None:
    """Each has its own answer, and the one good receipt among them is booked once."""
    phone, thief = app.device("phone"), app.device("phone")
    register(tollhouse, app, phone, tmp_path)
    good = phone.signed()
    forged, foreign = thief.signed(), FieldDevice("tenants/demo/devices/phone", key=phone.key).signed()

    first = app.report(forged, good, foreign, good)
    again = app.report(good)
    tollhouse.ok("devices", "revoke", phone.name, "--yes")
    revoked = app.report(phone.signed())
    stub = generation_pb2_grpc.GenerationServiceStub(app.channel)
    with pytest.raises(grpc.RpcError) as denied:
        stub.ReportOnDeviceUsage(
            pb.ReportOnDeviceUsageRequest(parent=app.project, receipts=[phone.signed()]),
            metadata=bearer(running_stack.demo_api_key),
        )

    outcomes = [(one.verdict, one.refusal) for one in (*first.outcomes, *again.outcomes, *revoked.outcomes)]
    assert outcomes == [
        (pb.RECEIPT_VERDICT_REFUSED, pb.RECEIPT_REFUSAL_SIGNATURE_INVALID),
        (pb.RECEIPT_VERDICT_ACCEPTED, 0),
        (pb.RECEIPT_VERDICT_REFUSED, pb.RECEIPT_REFUSAL_DEVICE_UNKNOWN),
        (pb.RECEIPT_VERDICT_DUPLICATE, 0),
        (pb.RECEIPT_VERDICT_DUPLICATE, 0),
        (pb.RECEIPT_VERDICT_REFUSED, pb.RECEIPT_REFUSAL_DEVICE_REVOKED),
    ]
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert app.usage().on_device.receipts == 1


def test_a_backend_reports_for_its_device_with_the_command_line(
    tollhouse: CommandLine, app: App, tmp_path: Path
) -> None:
    """Key pair, registration, a rehearsal, the report, and the same lines again."""
    tollhouse.ok("devices", "keygen", "fleet.pem")
    device = ("devices", "register", "fleet", "--project", app.project, "--public-key-file", "fleet.pem.pub")
    tollhouse.ok(*device)
    now = datetime.now(UTC).isoformat()
    line = {"startedAt": now, "model": "gemini-nano-v3", "inputTokens": 1000, "outputTokens": 50, "requests": 4}
    lines = "\n".join(json.dumps(line | {"sequence": number}) for number in (1, 2, 3))
    here = ("--tenant", app.company.tenant, "--device", "fleet")
    report = ("devices", "report", *here, "--key-file", "fleet.pem", "--file", "-")

    rehearsed = tollhouse(*report, "--dry-run", key=app.company.key, stdin=lines)
    done = tollhouse(*report, key=app.company.key, stdin=lines)
    again = tollhouse(*report, key=app.company.key, stdin=lines)

    assert (rehearsed.returncode, done.returncode, again.returncode) == (0, 0, 0), done.stderr
    assert "dry run, nothing was booked: 3 accepted" in rehearsed.stderr
    assert "3 accepted, 0 booked before, 0 refused" in done.stderr
    assert "0 accepted, 3 booked before, 0 refused" in again.stderr
    assert app.usage().on_device.requests == 12
    (listed,) = tollhouse.json("devices", "list", "--tenant", app.company.tenant)
    assert (listed["state"], "lastReportTime" in listed) == ("STATE_ACTIVE", True)


def test_a_report_of_a_thousand_receipts_is_taken_whole(tollhouse: CommandLine, app: App, tmp_path: Path) -> None:
    """Three in turn; what one costs is looked at where only its own time counts (test_on_device_service)."""
    phone = app.device("phone")
    register(tollhouse, app, phone, tmp_path)

    for _ in range(3):
        answer = app.report(*(phone.signed() for _ in range(1_000)))
        assert answer.accepted.receipts == 1_000
