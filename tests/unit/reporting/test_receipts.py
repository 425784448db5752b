"""What is signed: one text for one record, and nothing where there is nothing to be receipted."""

import json
from dataclasses import replace

import pytest
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.reporting.receipts import receipt_document
from tollhouse_server.reporting.records import UsageRecord

from tests.drivers.receipts import correction, document_of, line, record, suspended


def test_the_text_is_canonical() -> None:
    """Names sorted, no white space, nothing escaped that need not be, moments in UTC with six decimals."""
    simple = replace(record(1, [line()]), labels={"team": "Ü"}, usage=None, images=2**60)

    assert document_of(simple) == (
        '{"account":"accounts/main","attempt_id":"00000000-0000-0000-0000-000000000001","booking":{"booked_at":'
        '"2026-11-03T10:20:30.004000Z","cost_nanos":40,"images":1152921504606846976,"input_tokens":9,"kind":"SETTLED",'
        '"lines":[{"cost_nanos":40,"nanos_per_million_units":4444444,"quantity":9,"sku":"input_text","unit":"token"}],'
        '"outcome":"SERVED","output_tokens":11,"usage":null},"corrections":[],"cost_nanos":40,"credential":"k1",'
        '"department_path":["research","vision"],"labels":{"team":"Ü"},"method":"generateContent",'
        '"model":"gemini-3.5-flash","price_version":3,"project":"tenants/acme/departments/vision/projects/labels",'
        '"request_id":"00000000-0000-0001-0000-000000000001","settled_at":"2026-11-03T10:20:30.004000Z","started_at":'
        '"2026-11-03T10:20:28.004000Z","tenant":"tenants/acme","tier":"flash","version":"tollhouse.receipt/1"}'
    )


def test_usage_is_what_was_reported_without_what_is_zero() -> None:
    """Zero is not written; nothing reported is null."""
    document = json.loads(document_of(record()))

    assert document["booking"]["usage"] == {
        "prompt": {"text": 9, "image": 3},
        "candidates": {"text": 11},
        "flags": ["odd"],
    }
    assert json.loads(document_of(suspended()))["booking"]["usage"] is None


def test_a_corrected_call_shows_its_booking_and_its_correction() -> None:
    """The total is of both, and it is settled when it was corrected."""
    booked = suspended()
    corrected = correction(booked, [line()])

    document = json.loads(document_of(booked, corrected))

    assert (document["booking"]["kind"], document["booking"]["cost_nanos"]) == ("SUSPENSE", 1000)
    assert [(one["kind"], one["cost_nanos"]) for one in document["corrections"]] == [("ADJUSTMENT", -960)]
    assert document["cost_nanos"] == 40
    assert document["settled_at"] == document["corrections"][0]["booked_at"]


def test_a_call_in_suspense_is_not_settled() -> None:
    """Its receipt says what is booked until more is known."""
    document = json.loads(document_of(suspended()))

    assert (document["settled_at"], document["cost_nanos"]) == (None, 1000)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [replace(record(1, ()), kind=RecordKind.REFUSED)],
        # The booking was of a month that was dropped; its correction is of a later one.
        [correction(suspended(), [line()])],
    ],
)
def test_there_is_no_receipt_of_what_was_not_charged_or_is_not_all_there(records: list[UsageRecord]) -> None:
    """A part of the truth is not signed."""
    assert receipt_document(records) is None
