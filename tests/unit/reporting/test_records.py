"""Receipts from records, and usage from its JSON."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.pricing.usage import Tokens, Usage
from tollhouse_server.reporting.records import ChargedLine, UsageRecord, receipt_of, usage_of

BOOKED = datetime(2026, 5, 1, tzinfo=UTC)
LINE = ChargedLine(sku="input_text", quantity=9, unit="token", nanos_per_million=5, cost_nanos=40)
RECORD = UsageRecord(
    tenant_id="acme",
    attempt_id=UUID(int=1),
    settled_at=BOOKED,
    kind=RecordKind.SETTLED,
    request_id=UUID(int=2),
    dispatched_at=BOOKED,
    department_path=("research", "vision"),
    project_id="labels",
    credential_id="k1",
    method="generateContent",
    tier="flash",
    model="gemini-3.5-flash",
    account_id="main",
    labels={},
    price_version=3,
    input_tokens=9,
    output_tokens=0,
    images=0,
    cost_nanos=40,
    usage=None,
    lines=(LINE,),
    outcome="SERVED",
)
SUSPENDED = replace(RECORD, kind=RecordKind.SUSPENSE, cost_nanos=100, lines=())
CORRECTION = replace(RECORD, kind=RecordKind.ADJUSTMENT, cost_nanos=-60, settled_at=BOOKED + timedelta(days=1))


def test_the_receipt_of_a_settled_call_is_its_record() -> None:
    """Nothing is added, nothing lost."""
    receipt = receipt_of([RECORD])

    assert (receipt.cost_nanos, receipt.lines, receipt.settled_at) == (40, (LINE,), BOOKED)
    assert receipt.project_name == "tenants/acme/departments/vision/projects/labels"


def test_the_receipt_of_a_call_in_suspense_is_not_settled() -> None:
    """The booked cost is shown, a moment of settlement is not."""
    receipt = receipt_of([SUSPENDED])

    assert (receipt.cost_nanos, receipt.lines, receipt.settled_at) == (100, (), None)


def test_the_receipt_of_a_corrected_call_is_what_it_really_cost() -> None:
    """Booking and correction add up; the lines are those of the correction."""
    receipt = receipt_of([SUSPENDED, CORRECTION])

    assert (receipt.cost_nanos, receipt.lines) == (40, (LINE,))
    assert receipt.settled_at == CORRECTION.settled_at


def test_usage_survives_the_way_through_its_json() -> None:
    """What was booked is what is read."""
    usage = Usage(
        prompt=Tokens(text=7, image=3, other=1), cached=Tokens(text=2), thoughts_tokens=4, images=1, flags=("odd",)
    )

    assert usage_of(asdict(usage)) == usage


def test_usage_of_a_later_version_is_read_without_what_is_unknown() -> None:
    """A new modality does not make old servers fail."""
    document = {"prompt": {"text": 7, "smell": 9}, "colour": "red"}

    assert usage_of(document) == Usage(prompt=Tokens(text=7))


def test_no_usage_is_not_zero_usage() -> None:
    """An empty document means that nothing was reported."""
    assert usage_of({}) is None
