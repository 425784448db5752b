"""Suspense and verification from the command line."""

import json

import pytest
from google.type.money_pb2 import Money
from grpc import StatusCode
from tollhouse.admin.v1 import ledger_pb2 as pb

from tests.unit.admin_cli.canned import CannedServer, refusal
from tests.unit.admin_cli.conftest import Run

ATTEMPTS = [f"019a0000-0000-7000-8000-00000000000{n}" for n in range(3)]
RESOLVE = ("ledger", "suspense", "resolve", "--tenant", "acme", "--reason", "the bill")


def entry(attempt: str) -> pb.Suspense:
    """Build an attempt of $0.05 in suspense."""
    booked = pb.SuspenseAmounts(requests=1, cost=Money(currency_code="USD", nanos=50_000_000))
    return pb.Suspense(name=f"tenants/acme/suspense/{attempt}", cause="WORKER_DIED", booked=booked)


def resolved(request: pb.ResolveSuspenseRequest) -> pb.ResolveSuspenseResponse:
    """Answer as the server does to a void."""
    adjustment = pb.SuspenseAmounts(cost=Money(currency_code="USD", nanos=-50_000_000))
    return pb.ResolveSuspenseResponse(suspense=entry(request.name.rsplit("/", 1)[1]), adjustment=adjustment)


def test_suspense_is_listed_with_filters(server: CannedServer, run: Run) -> None:
    """A cause is written as people write it."""
    server.answers["ListSuspense"] = pb.ListSuspenseResponse(suspense=[entry(ATTEMPTS[0])])

    result = run("ledger", "suspense", "list", "--tenant", "acme", "--cause", "worker-died", "-o", "csv")

    assert server.last.request.parent == "tenants/acme"
    assert server.last.request.cause == "WORKER_DIED"
    assert f"{ATTEMPTS[0]},," in result.out


def test_an_attempt_is_resolved_at_what_it_cost(server: CannedServer, run: Run) -> None:
    """Exactly, with the counts that are known."""
    server.answers["ResolveSuspense"] = resolved

    result = run(*RESOLVE, ATTEMPTS[0], "--as", "actual", "--cost", "0.000000001", "--output-tokens", "1k", "--yes")

    request = server.last.request
    assert result.code == 0, result.err
    assert request.name == f"tenants/acme/suspense/{ATTEMPTS[0]}"
    assert request.resolution == pb.SUSPENSE_RESOLUTION_ACTUAL
    assert (request.actual.cost.units, request.actual.cost.nanos) == (0, 1)
    assert (request.actual.output_tokens, request.actual.HasField("input_tokens")) == (1000, False)
    assert request.reason == "the bill"


@pytest.mark.parametrize(
    "arguments",
    [
        (ATTEMPTS[0], "--as", "actual"),
        (ATTEMPTS[0], "--as", "void", "--cost", "1"),
        (ATTEMPTS[0], "--as", "void", "--all"),
        ("--as", "void"),
        ("--as", "actual", "--cost", "1", "--all"),
        (ATTEMPTS[0], "--as", "void", "--cause", "broken"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    server: CannedServer, run: Run, arguments: tuple[str, ...]
) -> None:
    """Before anything is sent."""
    result = run(*RESOLVE, *arguments, "--yes")

    assert result.code == 2
    assert server.received == []


def test_many_are_resolved_with_ids_that_make_a_repetition_harmless(server: CannedServer, run: Run) -> None:
    """The same ruling on the same attempt is the same request."""
    server.answers["ListSuspense"] = pb.ListSuspenseResponse(suspense=map(entry, ATTEMPTS))
    server.answers["ResolveSuspense"] = resolved

    first = run(*RESOLVE, "--as", "void", "--all", "--yes")
    again = run(*RESOLVE, "--as", "void", "--all", "--yes")

    ids = [call.request.request_id for call in server.received if call.method == "ResolveSuspense"]
    assert (first.code, again.code) == (0, 0)
    assert len(set(ids)) == 3
    assert ids[:3] == ids[3:]
    assert "3 resolved, adjusted by -$0.15" in first.err


def test_one_that_was_resolved_meanwhile_does_not_stop_the_others(server: CannedServer, run: Run) -> None:
    """It is counted."""
    server.answers["ListSuspense"] = pb.ListSuspenseResponse(suspense=map(entry, ATTEMPTS))
    server.answers["ResolveSuspense"] = refusal(StatusCode.FAILED_PRECONDITION, "WRONG_STATE", "it is RESOLVED")

    result = run(*RESOLVE, "--as", "void", "--all", "--yes")

    assert result.code == 0
    assert "0 resolved, adjusted by $0.00; 3 were resolved meanwhile" in result.err


def test_a_dry_run_of_many_changes_nothing(server: CannedServer, run: Run) -> None:
    """The server is asked what each would come to."""
    server.answers["ListSuspense"] = pb.ListSuspenseResponse(suspense=map(entry, ATTEMPTS))
    server.answers["ResolveSuspense"] = resolved

    result = run(*RESOLVE, "--as", "void", "--all", "--dry-run")

    asked = [call.request for call in server.received if call.method == "ResolveSuspense"]
    assert all(request.validate_only for request in asked)
    assert "nothing was changed" in result.err


def test_many_without_a_terminal_need_yes(server: CannedServer, run: Run) -> None:
    """What is resolved is resolved for good."""
    server.answers["ListSuspense"] = pb.ListSuspenseResponse(suspense=map(entry, ATTEMPTS))

    result = run(*RESOLVE, "--as", "void", "--all")

    assert result.code == 2
    assert [call.method for call in server.received] == ["ListSuspense"]


def verification(*findings: pb.VerificationFinding) -> list[pb.VerifyLedgerResponse]:
    """Build the answers to a verification with these findings."""
    progress = pb.VerificationProgress(tenant="tenants/acme", done_steps=1, total_steps=1, record_count=7)
    summary = pb.VerificationSummary(record_count=7, finding_count=len(findings), unchecked_counter_count=2)
    return [
        pb.VerifyLedgerResponse(progress=progress),
        *(pb.VerifyLedgerResponse(finding=finding) for finding in findings),
        pb.VerifyLedgerResponse(summary=summary),
    ]


def test_a_sound_ledger_is_exit_code_zero(server: CannedServer, run: Run) -> None:
    """And what could not be checked is said."""
    server.answers["VerifyLedger"] = verification()

    result = run("ledger", "verify", "--tenant", "acme", "--month", "2026-11")

    assert result.code == 0
    assert (server.last.request.parent, server.last.request.month) == ("tenants/acme", "2026-11")
    assert "the ledger adds up" in result.err
    assert "2 counters are not checkable" in result.err


def test_findings_end_with_another_exit_code(server: CannedServer, run: Run) -> None:
    """As JSON with the summary; the whole platform without a tenant."""
    finding = pb.VerificationFinding(
        tenant="tenants/acme",
        check=pb.VERIFICATION_CHECK_COUNTERS,
        table="counter",
        key="limit budget",
        field="settled",
        expected="40",
        found="41",
    )
    server.answers["VerifyLedger"] = verification(finding)

    result = run("ledger", "verify", "-o", "json")

    document = json.loads(result.out)
    assert result.code == 1
    assert server.last.request.parent == ""
    assert document["findings"][0]["found"] == "41"
    assert document["summary"]["findingCount"] == "1"
    assert "LEDGER_DOES_NOT_ADD_UP" in result.err


def test_a_verification_without_a_verdict_proves_nothing(server: CannedServer, run: Run) -> None:
    """A stream that just ends is a failure."""
    server.answers["VerifyLedger"] = verification()[:1]

    assert run("ledger", "verify").code == 7
