"""Limits of every kind, increases and alerts, as people type and read them."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import limit_alerts_pb2, limits_pb2
from tollhouse.admin.v1 import limit_increases_pb2 as increases_pb2

from tests.unit.admin_cli.canned import CannedServer, refusal
from tests.unit.admin_cli.conftest import Run

CREATE = ("limits", "create", "cap", "-t", "acme")
INCREASES = ("limits", "increases")
NAME = "tenants/acme/limitIncreases/fair"
STORED = limits_pb2.Limit(name="tenants/acme/limits/cap", metric=limits_pb2.LIMIT_METRIC_COST)
ASKED = increases_pb2.LimitIncrease(name=NAME, limit=STORED.name, state=increases_pb2.LimitIncrease.STATE_REQUESTED)


def dollars(units: int) -> limits_pb2.LimitAmount:
    """An amount of money."""
    return limits_pb2.LimitAmount(money=Money(currency_code="USD", units=units))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_an_elastic_budget_is_created_from_what_people_type(server: CannedServer, run: Run) -> None:
    """Overshoot in the unit of the metric; thresholds in any order."""
    server.answers["CreateLimit"] = STORED

    result = run(
        *(*CREATE, "--metric", "cost", "--window", "fiscal-month", "--amount", "$10", "--mode", "elastic"),
        *("--overshoot", "$1", "--threshold", "80", "--threshold", "50", "--threshold", "80"),
    )

    limit = server.last.request.limit
    assert result.code == 0, result.err
    assert (limit.mode, limit.window) == (limits_pb2.LIMIT_MODE_ELASTIC, limits_pb2.LIMIT_WINDOW_FISCAL_MONTH)
    assert (limit.amount, limit.overshoot, list(limit.thresholds)) == (dollars(10), dollars(1), [50, 80])


def test_calls_in_flight_need_no_window_and_all_else_does(server: CannedServer, run: Run) -> None:
    """It is said before the server is asked."""
    server.answers["CreateLimit"] = STORED

    lacking = run(*CREATE, "--metric", "requests", "--amount", "5")
    asked = len(server.received)
    created = run(*CREATE, "--metric", "concurrency", "--amount", "5")

    assert (lacking.code, asked) == (2, 0)
    assert "Add --window" in lacking.err
    assert created.code == 0
    assert server.last.request.limit.window == limits_pb2.LIMIT_WINDOW_UNSPECIFIED
    assert server.last.request.limit.amount == limits_pb2.LimitAmount(units=5)


def test_only_what_is_typed_is_changed(server: CannedServer, run: Run) -> None:
    """The limit is read only where its unit has to be known."""
    server.answers |= {"GetLimit": STORED, "UpdateLimit": STORED}

    run("limits", "update", "cap", "-t", "acme", "--mode", "soft", "--no-thresholds")
    first, methods = server.last.request, [call.method for call in server.received]
    run("limits", "update", "cap", "-t", "acme", "--overshoot", "$2", "--threshold", "90")

    assert methods == ["UpdateLimit"]
    assert (list(first.update_mask.paths), first.limit.mode) == (["mode", "thresholds"], limits_pb2.LIMIT_MODE_SOFT)
    assert list(server.last.request.update_mask.paths) == ["overshoot", "thresholds"]
    assert (server.last.request.limit.overshoot, list(server.last.request.limit.thresholds)) == (dollars(2), [90])


@pytest.mark.parametrize(
    ("typed", "said"),
    [([], "--amount, --mode, --overshoot"), (["--threshold", "5", "--no-thresholds"], "do not go together")],
)
def test_a_change_of_nothing_or_of_two_things_at_once_is_not_sent(
    server: CannedServer, run: Run, typed: list[str], said: str
) -> None:
    """With what would be possible."""
    result = run("limits", "update", "cap", "-t", "acme", *typed)

    assert (result.code, server.received) == (2, [])
    assert said in result.err


# --- increases --------------------------------------------------------------------------------------------------------


def test_an_increase_is_asked_for_in_the_unit_of_its_limit(server: CannedServer, run: Run) -> None:
    """Its end may be a span from now."""
    server.answers |= {"GetLimit": STORED, "RequestLimitIncrease": ASKED}

    result = run(
        *(*INCREASES, "request", "cap", "-t", "acme", "--amount", "$50", "--reason", "the fair", "--expires", "7d"),
        *("--starts", "2026-12-01", "--id", "fair"),
    )

    request = server.last.request
    assert result.code == 0, result.err
    assert (request.parent, request.limit_increase_id, request.scope) == ("tenants/acme", "fair", "")
    assert (request.limit_increase.limit, request.limit_increase.amount) == (STORED.name, dollars(50))
    assert request.limit_increase.start_time.ToDatetime(UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    ends_in = request.limit_increase.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(days=7, minutes=-5) < ends_in <= timedelta(days=7)


def test_who_may_ask_in_a_department_only_names_it(server: CannedServer, run: Run) -> None:
    """The limit is looked for there, as the whole tenant's are not his to read."""
    server.answers |= {
        "ListLimits": limits_pb2.ListLimitsResponse(limits=[STORED]),
        "RequestLimitIncrease": ASKED,
    }
    ask = ("-t", "acme", "-d", "sales", "--amount", "5", "--reason", "x", "--expires", "7d")

    run(*INCREASES, "request", "cap", *ask)
    missing = run(*INCREASES, "request", "other", *ask)

    listed, asked = server.received[0].request, server.received[1].request
    assert listed.scope == asked.scope == "tenants/acme/departments/sales"
    assert missing.code == 4
    assert "tenants/acme/limits/other does not exist on tenants/acme/departments/sales" in missing.err


@pytest.mark.parametrize("step", ["approve", "reject", "withdraw"])
def test_a_decision_carries_its_reason_and_the_version_that_was_read(server: CannedServer, run: Run, step: str) -> None:
    """And the scope where the permission is."""
    server.answers[f"{step.capitalize()}LimitIncrease"] = ASKED

    run(*INCREASES, step, "fair", "-t", "acme", "--reason", "fine", "--etag", "v1", "--scope", "departments/sales")

    request = server.last.request
    assert (request.name, request.decision_reason, request.etag) == (NAME, "fine", "v1")
    assert request.scope == "tenants/acme/departments/sales"


def test_an_approval_is_previewed(server: CannedServer, run: Run) -> None:
    """What would differ, from the server's own answer."""
    approved = increases_pb2.LimitIncrease(
        name=NAME, limit=STORED.name, state=increases_pb2.LimitIncrease.STATE_APPROVED, decider="tenants/acme/x"
    )
    server.answers |= {"GetLimitIncrease": ASKED, "ApproveLimitIncrease": approved}

    result = run(*INCREASES, "approve", "fair", "-t", "acme", "--dry-run", "-o", "csv")

    assert server.last.request.validate_only
    assert result.out == "field,before,after\nstate,requested,approved\ndecider,,tenants/acme/x\n"


def test_an_early_end_is_confirmed(server: CannedServer, run: Run) -> None:
    """Somebody counts on it."""
    server.answers["RevokeLimitIncrease"] = ASKED

    refused = run(*INCREASES, "revoke", "fair", "-t", "acme")
    confirmed = run(*INCREASES, "revoke", "fair", "-t", "acme", "--yes")

    assert (refused.code, confirmed.code) == (2, 0)
    assert server.last.method == "RevokeLimitIncrease"


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "SECOND_PERSON_NEEDED", "limit-approver"),
        (grpc.StatusCode.PERMISSION_DENIED, "REQUESTER_ONLY", "increases reject"),
        (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "'show' tells"),
    ],
)
def test_a_refused_decision_says_what_to_do(
    server: CannedServer, run: Run, code: grpc.StatusCode, reason: str, said: str
) -> None:
    """In one line."""
    server.answers["ApproveLimitIncrease"] = refusal(code, reason, "No.")

    result = run(*INCREASES, "approve", "fair", "-t", "acme")

    assert result.err.startswith(f"error: {reason}: No.")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_increases_are_listed_by_limit_and_state(server: CannedServer, run: Run) -> None:
    """With who asked and why."""
    increase = increases_pb2.LimitIncrease(name=NAME, amount=dollars(5), reason="a, b", requester="tenants/acme/p")
    server.answers["ListLimitIncreases"] = increases_pb2.ListLimitIncreasesResponse(limit_increases=[increase])

    result = run(*INCREASES, "list", "cap", "-t", "acme", "--state", "requested", "-o", "csv")

    request = server.last.request
    assert (request.parent, request.limit) == ("tenants/acme", STORED.name)
    assert request.state == increases_pb2.LimitIncrease.STATE_REQUESTED
    row = next(csv.DictReader(io.StringIO(result.out)))
    assert (row["amount"], row["reason"], row["requester"]) == ("5.00", "a, b", "tenants/acme/p")


# --- alerts -----------------------------------------------------------------------------------------------------------


def test_alerts_are_listed_since_a_moment(server: CannedServer, run: Run) -> None:
    """Money as money, kinds as words."""
    alert = limit_alerts_pb2.LimitAlert(
        kind=limit_alerts_pb2.LimitAlert.KIND_ABOVE_HOLD, settled=dollars(3), raise_time=Timestamp(seconds=1)
    )
    server.answers["ListLimitAlerts"] = limit_alerts_pb2.ListLimitAlertsResponse(limit_alerts=[alert])

    result = run("limits", "alerts", "cap", "-t", "acme", "--since", "2026-11-01", "-o", "csv")
    document = run("limits", "alerts", "-t", "acme", "-d", "sales", "-o", "json")

    narrowed, whole = (call.request for call in server.received)
    assert (narrowed.limit, narrowed.start_time.ToDatetime(UTC)) == (STORED.name, datetime(2026, 11, 1, tzinfo=UTC))
    assert (whole.scope, whole.limit) == ("tenants/acme/departments/sales", "")
    row = next(csv.DictReader(io.StringIO(result.out)))
    assert (row["kind"], row["settled"], row["raise_time"]) == ("above-hold", "3.00", "1970-01-01T00:00:01Z")
    assert json.loads(document.out)[0]["kind"] == "KIND_ABOVE_HOLD"
