"""GenerationService.ReportOnDeviceUsage against PostgreSQL: each receipt for itself, once for ever, at no cost."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tollhouse.admin.v1 import devices_pb2 as admin
from tollhouse.admin.v1 import projects_pb2
from tollhouse.admin.v1 import usage_reports_pb2 as reports
from tollhouse.v1 import devices_pb2 as pb
from tollhouse.v1 import usage_pb2
from tollhouse_server.api.services.on_device_service import OnDeviceService
from tollhouse_server.api.services.usage_reports_service import UsageReportService
from tollhouse_server.api.services.usage_service import UsageService
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.devices import checks
from tollhouse_server.devices.booking import OnDeviceBooks
from tollhouse_server.errors import InvalidRequest, ResourceNotFound
from tollhouse_server.pricing.terms import PriceBook, PriceList
from tollhouse_server.routing.models import TierChoice
from tollhouse_server.tenancy.project_paths import ProjectPaths

from tests.drivers.devices import FieldDevice
from tests.drivers.postgres import TestDatabase
from tests.drivers.verification import findings_in
from tests.integration.admin.plane import Plane
from tests.integration.api.callers import PAGES, ROBOT, by
from tests.unit.routing.build import catalogue, model

TENANT = "tenants/acme"
CRM = f"{TENANT}/departments/emea/projects/crm"
CHAT = f"{TENANT}/departments/sales/projects/chat"
CALLER = replace(ROBOT, project_id="crm", department_ids=("sales", "emea"))
PRICES = PriceList(
    model="lite",
    effective_from=datetime(2020, 1, 1, tzinfo=UTC),
    source="test",
    nanos_per_million={"input_text": 100_000_000, "output_text": 400_000_000},
)
ACCEPTED, DUPLICATE = pb.RECEIPT_VERDICT_ACCEPTED, pb.RECEIPT_VERDICT_DUPLICATE


@dataclass(frozen=True, slots=True)
class Reporting:
    """A service that takes reports, and the plane on which its devices are kept."""

    plane: Plane
    service: OnDeviceService

    async def device(self, name: str, project: str = CRM, **fields: Any) -> FieldDevice:
        """Register a device."""
        device = FieldDevice(f"{TENANT}/devices/{name}")
        resource = admin.Device(project=project, public_key=device.public_key, **fields)
        await self.plane.call(admin.CreateDeviceRequest(parent=TENANT, device_id=name, device=resource))
        return device

    async def report(self, *receipts: pb.SignedReceipt, **fields: Any) -> pb.ReportOnDeviceUsageResponse:
        """Report as a service of project crm does."""
        request = pb.ReportOnDeviceUsageRequest(receipts=receipts, **fields)
        return await self.service.report_on_device_usage(request, by(CALLER))

    async def refusals(self, *receipts: pb.SignedReceipt) -> list[str]:
        """Report, and return why each was refused, or its verdict where it was not."""
        answer = await self.report(*receipts)
        return [
            pb.ReceiptRefusal.Name(one.refusal)[16:] if one.refusal else pb.ReceiptVerdict.Name(one.verdict)[16:]
            for one in answer.outcomes
        ]

    async def used(self, scope: str = TENANT) -> pb.OnDeviceUsage:
        """Return what the month's summary shows."""
        service = UsageService(self.plane.database, PAGES)
        answer = await service.get_usage_summary(usage_pb2.GetUsageSummaryRequest(parent=scope), by(CALLER))
        return answer.on_device


@pytest.fixture
async def reporting(fresh_database: TestDatabase) -> AsyncIterator[Reporting]:
    """Tenant acme with projects crm and chat, and a catalogue whose cheapest model has a price."""
    plane = await Plane.start(fresh_database.app_dsn)
    await plane.tenant("acme")
    await plane.call(projects_pb2.CreateProjectRequest(parent=f"{TENANT}/departments/sales", project_id="chat"))
    known = catalogue(model("lite"), model("dear"), tiers={"flash-lite": [TierChoice(model="lite")]})
    books = OnDeviceBooks(
        plane.database,
        catalogue=lambda: known,
        price_book=lambda: PriceBook(7, [PRICES]),
        project_paths=ProjectPaths(plane.database, plane.watch),
    )
    yield Reporting(plane, OnDeviceService(books, LiveBoundLabels(plane.database)))
    await plane.database.close()


async def test_an_accepted_receipt_costs_nothing_and_shows_what_it_avoided(reporting: Reporting) -> None:
    """1,000,000 tokens in at $0.10 and 500,000 out at $0.40 a million: $0.30 that nobody paid."""
    phone = await reporting.device("phone")

    answer = await reporting.report(phone.signed(input_tokens=1_000_000, output_tokens=500_000, requests=20))

    (outcome,) = answer.outcomes
    assert outcome.verdict == ACCEPTED
    assert (outcome.avoided_cost.units, outcome.avoided_cost.nanos, outcome.avoided_model) == (0, 300_000_000, "lite")
    used = await reporting.used(CRM)
    assert (used.receipts, used.requests, used.input_tokens, used.output_tokens) == (1, 20, 1_000_000, 500_000)
    assert (used.avoided_cost.nanos, used.unpriced_requests) == (300_000_000, 0)
    assert answer.accepted == used
    device = await reporting.plane.call(admin.GetDeviceRequest(name=phone.name))
    assert (device.HasField("last_report_time"), device.etag) == (True, "v1")


async def test_forged_and_foreign_receipts_are_refused_one_by_one_and_count_nothing(reporting: Reporting) -> None:
    """One bad receipt does not spoil the others, and what is refused is counted nowhere."""
    phone, other = await reporting.device("phone"), await reporting.device("other", CHAT)
    thief = FieldDevice(phone.name)
    tampered = phone.signed()
    tampered.receipt = phone.receipt(input_tokens=1).SerializeToString()

    refusals = await reporting.refusals(
        thief.signed(),
        tampered,
        phone.sign(phone.receipt(), prefix=b""),
        phone.sign(phone.receipt(), prefix=b"tollhouse.v1.Other\0"),
        pb.SignedReceipt(receipt=phone.receipt().SerializeToString(), signature=b"short"),
        pb.SignedReceipt(receipt=b"\xff\xff", signature=bytes(64)),
        FieldDevice(f"{TENANT}/devices/nobody").signed(),
        other.signed(),
        FieldDevice(other.name).signed(),
        FieldDevice("tenants/rival/devices/phone", key=phone.key).signed(),
        phone.signed(),
    )

    assert refusals == [
        *("SIGNATURE_INVALID",) * 5,
        "MALFORMED",
        "DEVICE_UNKNOWN",
        "OTHER_PROJECT",
        *("DEVICE_UNKNOWN",) * 2,
        "ACCEPTED",
    ]
    assert (await reporting.used()).receipts == 1


async def test_a_receipt_is_counted_once_whenever_and_however_often_it_comes(reporting: Reporting) -> None:
    """In one report or in the next: DUPLICATE, and a number used for something else is refused."""
    phone = await reporting.device("phone")
    receipt, said = phone.signed(), phone.receipt()

    first = await reporting.report(receipt, receipt)
    second = await reporting.report(phone.sign(said), receipt)
    reused = await reporting.refusals(
        phone.sign(phone.receipt(sequence=said.sequence)),
        phone.sign(phone.receipt(receipt_id=said.receipt_id)),
    )

    assert [one.verdict for one in first.outcomes] == [ACCEPTED, DUPLICATE]
    assert first.duplicate_count == 1
    assert [one.verdict for one in second.outcomes] == [ACCEPTED, DUPLICATE]
    assert reused == ["NUMBER_REUSED", "NUMBER_REUSED"]
    assert (await reporting.used()).requests == 2


async def test_reports_at_one_moment_share_out_what_they_have_in_common(reporting: Reporting) -> None:
    """A client that lost its connection sends all again while the first report is at work; so do eight."""
    phone, tablet = await reporting.device("phone", max_daily_receipts=90), await reporting.device("tablet")
    receipts = [device.signed() for _ in range(100) for device in (phone, tablet)]

    answers = await asyncio.gather(*(reporting.report(*receipts[:: 1 - n % 2 * 2]) for n in range(8)))

    assert [sum(answer.accepted.receipts for answer in answers), (await reporting.used()).receipts] == [190, 190]


async def test_the_same_numbers_on_two_devices_are_two_receipts(reporting: Reporting) -> None:
    """Each device counts for itself."""
    phone, tablet = await reporting.device("phone"), await reporting.device("tablet")
    receipt_id = str(uuid4())

    refusals = await reporting.refusals(
        phone.signed(receipt_id=receipt_id, sequence=1), tablet.signed(receipt_id=receipt_id, sequence=1)
    )

    assert refusals == ["ACCEPTED", "ACCEPTED"]


SAID: list[tuple[dict[str, Any], str]] = [
    ({"started_at": timedelta(minutes=4)}, "ACCEPTED"),
    ({"started_at": timedelta(minutes=6)}, "IN_FUTURE"),
    ({"started_at": -timedelta(days=34)}, "ACCEPTED"),
    ({"started_at": -timedelta(days=35, minutes=1)}, "TOO_OLD"),
    ({"started_at": None}, "MALFORMED"),
    ({"requests": 0}, "ACCEPTED"),
    ({"requests": -1}, "MALFORMED"),
    ({"requests": 100_001}, "MALFORMED"),
    ({"input_tokens": 131_072}, "ACCEPTED"),
    ({"input_tokens": 131_073}, "IMPLAUSIBLE"),
    ({"output_tokens": 131_073}, "IMPLAUSIBLE"),
    ({"output_tokens": -1}, "MALFORMED"),
    ({"output_tokens": 2**63 - 1}, "IMPLAUSIBLE"),
    ({"sequence": 0}, "MALFORMED"),
    ({"sequence": 2**63 - 1}, "ACCEPTED"),
    ({"receipt_id": "7"}, "MALFORMED"),
    ({"model": ""}, "MALFORMED"),
    ({"model": "gemini\0nano"}, "MALFORMED"),
    ({"task": "x" * 101}, "MALFORMED"),
    ({"labels": {f"k{i}": "v" for i in range(17)}}, "MALFORMED"),
    ({"labels": {"k": "\0"}}, "MALFORMED"),
]
"""What receipts may say, and what comes of it; times are from now."""


async def test_what_a_receipt_says_must_be_possible(reporting: Reporting) -> None:
    """Clocks may differ and networks fail, within bounds; nonsense never reaches a table."""
    phone = await reporting.device("phone")
    now = datetime.now(UTC)
    said = [{k: now + v if isinstance(v, timedelta) else v for k, v in fields.items()} for fields, _ in SAID]

    refusals = await reporting.refusals(*(phone.signed(**fields) for fields in said))

    assert refusals == [expected for _, expected in SAID]


async def test_a_receipt_that_was_booked_is_known_when_it_has_become_too_old(
    reporting: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that never heard the answer may stop sending it."""
    phone = await reporting.device("phone")
    booked, late = phone.signed(), phone.signed()
    await reporting.report(booked)
    monkeypatch.setattr(checks, "LONGEST_AGO", -timedelta(seconds=1))

    assert await reporting.refusals(booked, late) == ["DUPLICATE", "TOO_OLD"]


async def test_revoked_and_deleted_devices_are_heard_no_more(reporting: Reporting) -> None:
    """At once, also what they had signed before; what was booked stays."""
    phone, tablet = await reporting.device("phone"), await reporting.device("tablet")
    await reporting.report(phone.signed(), tablet.signed())
    await reporting.plane.call(admin.RevokeDeviceRequest(name=phone.name))
    await reporting.plane.call(admin.DeleteDeviceRequest(name=tablet.name))

    refusals = await reporting.refusals(phone.signed(), tablet.signed())

    assert refusals == ["DEVICE_REVOKED", "DEVICE_UNKNOWN"]
    assert (await reporting.used()).receipts == 2


async def test_a_compromised_device_is_bounded_by_its_day(reporting: Reporting) -> None:
    """Whoever has its key can make up so many receipts and tokens, and no more until the next day."""
    few = await reporting.device("few", max_daily_receipts=2)
    small = await reporting.device("small", max_daily_tokens=250)
    receipts = [few.signed() for _ in range(3)]

    by_number = await reporting.refusals(*receipts)
    by_tokens = await reporting.refusals(small.signed(), small.signed(), small.signed(), small.signed(input_tokens=20))
    async with reporting.plane.database.transaction() as session:
        await (await session.connection()).exec_driver_sql("UPDATE device SET report_day = report_day - 1")
    next_day = await reporting.refusals(*receipts)

    assert by_number == ["ACCEPTED", "ACCEPTED", "DAILY_LIMIT"]
    assert by_tokens == ["ACCEPTED", "ACCEPTED", "DAILY_LIMIT", "ACCEPTED"]
    assert next_day == ["DUPLICATE", "DUPLICATE", "ACCEPTED"]


async def test_a_dry_run_answers_the_same_and_books_nothing(reporting: Reporting) -> None:
    """The receipts are good afterwards."""
    phone = await reporting.device("phone")
    receipt = phone.signed()

    dry = await reporting.report(receipt, receipt, validate_only=True)
    real = await reporting.report(receipt, receipt)

    assert dry == real
    assert (await reporting.used()).receipts == 1


async def test_use_is_summed_by_the_tree_and_stands_beside_the_cost(reporting: Reporting) -> None:
    """A project's is its departments' too; the report of the month shows it apart, and no line or total has it."""
    phone, other = await reporting.device("phone"), await reporting.device("other", CHAT)
    await reporting.report(phone.signed())
    await reporting.report(other.signed(), parent=CHAT)
    scopes = (TENANT, f"{TENANT}/departments/sales", f"{TENANT}/departments/emea", CRM, CHAT)

    receipts = [(await reporting.used(scope)).receipts for scope in scopes]
    service = UsageReportService(reporting.plane.database, PAGES)
    month = await service.get_month_report(reports.GetMonthReportRequest(parent=TENANT), by(CALLER))

    assert receipts == [2, 2, 1, 1, 1]
    assert (month.on_device.receipts, month.on_device.avoided_cost.nanos) == (2, 2 * 14_000)
    assert (month.totals.record_count, month.totals.cost.nanos, len(month.lines)) == (0, 0, 0)
    assert await findings_in(reporting.plane.database) == []


async def test_a_project_that_is_not_there_is_an_error_of_the_whole_report(reporting: Reporting) -> None:
    """There is nothing to book it on; a credential without a project must name one."""
    phone = await reporting.device("phone")

    with pytest.raises(ResourceNotFound):
        await reporting.report(phone.signed(), parent=f"{TENANT}/departments/sales/projects/crm")
    with pytest.raises(InvalidRequest):
        await reporting.service.report_on_device_usage(
            pb.ReportOnDeviceUsageRequest(receipts=[phone.signed()]), by(replace(CALLER, project_id=None))
        )


async def test_a_thousand_receipts_take_well_under_a_second_of_processor_time(reporting: Reporting) -> None:
    """In CPU time: this machine may have other things to do."""
    phone = await reporting.device("phone")
    receipts = [phone.signed() for _ in range(1_000)]

    started = time.process_time()
    answer = await reporting.report(*receipts)
    seconds = time.process_time() - started

    assert answer.accepted.receipts == 1_000
    assert seconds < 1.0, seconds
