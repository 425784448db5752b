"""What a refusal says on the wire."""

import base64
from urllib.parse import quote

import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2, error_details_pb2
from tollhouse.v1 import errors_pb2
from tollhouse_server.api.statuses import status_of
from tollhouse_server.errors import (
    BudgetCutOff,
    FieldViolation,
    InvalidRequest,
    LimitExceeded,
    PeriodObstructed,
    StoreLostMidStream,
    TollhouseError,
    UpstreamRefused,
)

CLIENTS_TAKE_BYTES = 8192
"""Of all trailers together: what gRPC's clients take by default."""


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("REQUESTS", "request"),
        ("INPUT_TOKENS", "token"),
        ("OUTPUT_TOKENS", "token"),
        ("IMAGES", "image"),
        ("COST", "nanos"),
    ],
)
def test_a_refused_call_learns_the_limits_amounts_in_the_documented_unit(metric: str, unit: str) -> None:
    """The units are those of errors.proto, as in the list of limits."""
    error = LimitExceeded(
        limit="tenants/acme/limits/day",
        scope="tenants/acme",
        selector="models/gemini-3.5-flash",
        metric=metric,
        window="DAY",
        amount=10,
        held=4,
        settled=5,
        requested=2,
        resets_at=None,
        retry_after_seconds=None,
    )

    status = status_of(error, "c0ffee")

    state = errors_pb2.LimitState()
    assert [detail.Unpack(state) for detail in status.details].count(True) == 1
    assert (state.unit, state.requested, state.HasField("resets_at")) == (unit, 2, False)
    assert (state.scope, state.model, state.HasField("tier")) == ("tenants/acme", "gemini-3.5-flash", False)


def test_what_google_said_of_a_refusal_is_passed_on_whole() -> None:
    """Status, message and every detail, nested ones too."""
    detail = {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"url": "https://example.com", "rank": 1.5}]}
    body = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no", "details": [detail, "odd"]}}
    error = UpstreamRefused(http_status=400, status="INVALID_ARGUMENT", upstream_message="no", body=body)

    status = status_of(error, "c0ffee")

    said = errors_pb2.UpstreamError()
    assert [detail.Unpack(said) for detail in status.details].count(True) == 1
    assert (said.http_status, said.status, said.message) == (400, "INVALID_ARGUMENT", "no")
    assert [MessageToDict(one) for one in said.details] == [detail]


def test_a_stream_that_a_budget_ended_says_which_how_far_it_came_and_when_to_come_back() -> None:
    """RESOURCE_EXHAUSTED with all that a refusal says, and what was used by then."""
    error = BudgetCutOff(
        limit="tenants/acme/limits/day",
        scope="tenants/acme",
        selector="",
        metric="COST",
        window="DAY",
        amount=10**9,
        held=4,
        settled=5,
        requested=2,
        resets_at=None,
        retry_after_seconds=1.5,
        attempt_id="a1",
        input_tokens=7,
        output_tokens=812,
        cost_nanos=30_000_000,
    )

    status = status_of(error, "c0ffee")

    state, retry, info = errors_pb2.LimitState(), error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    for message in (state, retry, info):
        assert [detail.Unpack(message) for detail in status.details].count(True) == 1
    assert (status.code, info.reason) == (code_pb2.RESOURCE_EXHAUSTED, "BUDGET_CUT_OFF")
    assert (state.limit, state.amount, state.requested) == ("tenants/acme/limits/day", 10**9, 2)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)
    assert (info.metadata["output_tokens"], info.metadata["attempt_id"]) == ("812", "a1")
    assert "after 812 output tokens" in status.message
    assert "$0.03 is booked" in status.message


def test_a_stream_that_lost_its_ledger_says_what_is_booked() -> None:
    """UNAVAILABLE, but something was sent: the caller must not take it for nothing."""
    status = status_of(StoreLostMidStream(attempt_id="a1", output_tokens=300), "c0ffee")

    assert status.code == code_pb2.UNAVAILABLE
    assert "booked as attempt a1" in status.message


def trailers_bytes(error: TollhouseError) -> int:
    """Return how long the trailers of an error are: the sentence percent-encoded, and the status in base64."""
    status = status_of(error, "c0ffee" * 6)
    return len(quote(status.message)) + len(base64.b64encode(status.SerializeToString()))


@pytest.mark.parametrize(
    "text", ["is not a price", "ist kein Preis \N{EURO SIGN}" * 300, "\N{CJK UNIFIED IDEOGRAPH-4EF7}" * 3000]
)
@pytest.mark.parametrize("count", [1, 700])
def test_an_error_with_very_much_to_say_is_short_enough_to_arrive(text: str, count: int) -> None:
    """Of a file that is wrong in each line its first ones are named, and how many more there are."""
    violations = tuple(FieldViolation(path=f"prices[{line}].cost", description=text) for line in range(count))

    sizes = [
        trailers_bytes(InvalidRequest(violations=violations)),
        trailers_bytes(PeriodObstructed(name="tenants/acme/periods/2026-10", obstacles=text * count)),
    ]

    assert max(sizes) < CLIENTS_TAKE_BYTES


def test_what_is_left_out_of_an_error_is_counted() -> None:
    """So that nobody takes the first violations for all of them."""
    violations = tuple(FieldViolation(path=f"prices[{line}]", description="x" * 90) for line in range(100))
    bad = error_details_pb2.BadRequest()

    status = status_of(InvalidRequest(violations=violations), "c0ffee")

    assert [detail.Unpack(bad) for detail in status.details].count(True) == 1
    named = len(bad.field_violations) - 1
    assert named > 10
    assert bad.field_violations[-1].description == f"and {100 - named} more"
