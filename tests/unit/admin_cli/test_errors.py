"""Every failure is one readable line with an exit code; no traceback, no key."""

import json
import threading
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, QuotaFailure, RetryInfo
from tollhouse.admin.v1 import api_keys_pb2, charge_rules_pb2, limits_pb2, projects_pb2, roles_pb2, tenants_pb2
from tollhouse.v1 import errors_pb2

from tests.unit.admin_cli.canned import CannedServer, Refusal, refusal
from tests.unit.admin_cli.conftest import KEY, Run

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (Code.INTERNAL, 1),
        (Code.UNAUTHENTICATED, 3),
        (Code.PERMISSION_DENIED, 3),
        (Code.NOT_FOUND, 4),
        (Code.INVALID_ARGUMENT, 5),
        (Code.FAILED_PRECONDITION, 5),
        (Code.ALREADY_EXISTS, 5),
        (Code.ABORTED, 5),
        (Code.RESOURCE_EXHAUSTED, 6),
        (Code.UNAVAILABLE, 7),
        (Code.DEADLINE_EXCEEDED, 7),
    ],
)
def test_each_status_has_its_exit_code_and_one_line(
    server: CannedServer, run: Run, code: grpc.StatusCode, exit_code: int
) -> None:
    """Scripts branch on the exit code, people read the line."""
    server.answers["GetTenant"] = refusal(code, "SOME_REASON", "Something is the matter")

    result = run("tenants", "show", "acme")

    assert result.code == exit_code
    assert result.err.startswith("error: SOME_REASON: Something is the matter.")
    assert result.err.count("\n") == 1
    assert result.out == ""


def test_a_limit_that_refuses_is_told_with_its_numbers_in_dollars(server: CannedServer, run: Run) -> None:
    """Who is refused sees how much there is, what is held and settled, and when it starts anew."""
    resets = Timestamp()
    resets.FromDatetime(datetime(2026, 12, 1, tzinfo=UTC))
    state = errors_pb2.LimitState(
        limit="tenants/acme/limits/monthly",
        metric="COST",
        window="MONTH",
        unit="nanos",
        amount=100_000_000_000,
        held=20_000_001,
        settled=99_970_000_000,
        requested=50_000_000,
        resets_at=resets,
    )
    server.answers["GetTenant"] = refusal(
        Code.RESOURCE_EXHAUSTED,
        "LIMIT_EXCEEDED",
        "No room.",
        state,
        QuotaFailure(violations=[QuotaFailure.Violation(subject="limit", description="full")]),
        RetryInfo(retry_delay=Duration(seconds=11, nanos=1)),
    )

    result = run("tenants", "show", "acme")

    assert result.code == 6
    assert (
        "No room in tenants/acme/limits/monthly (cost per month): amount $100.00, held $0.020000001, "
        "settled $99.97, requested $0.05, resets 2026-12-01T00:00:00Z." in result.err
    )
    assert "Try again in 12 s." in result.err
    assert "tollhouse usage limits" in result.err


def test_wrong_fields_are_named(server: CannedServer, run: Run) -> None:
    """A refusal that lists fields is of no use without them."""
    violation = BadRequest.FieldViolation(field="tenant.time_zone", description="is not a time zone")
    server.answers["CreateTenant"] = refusal(
        Code.INVALID_ARGUMENT, "INVALID_REQUEST", "Wrong.", BadRequest(field_violations=[violation])
    )

    result = run("tenants", "create", "acme", "--time-zone", "Mars")

    assert result.code == 5
    assert "tenant.time_zone: is not a time zone." in result.err


def test_verbose_adds_the_details_as_json(server: CannedServer, run: Run) -> None:
    """What does not fit into a line can be had."""
    server.answers["GetTenant"] = refusal(Code.NOT_FOUND, "RESOURCE_NOT_FOUND", "None.")

    result = run("tenants", "show", "acme", "--verbose")

    line, _, document = result.err.partition("\n")
    assert line.startswith("error: RESOURCE_NOT_FOUND")
    assert json.loads(document)["details"][0]["reason"] == "RESOURCE_NOT_FOUND"


def test_an_unknown_outcome_tells_the_request_id_to_repeat_with(server: CannedServer, run: Run) -> None:
    """The same id makes the repetition safe."""
    server.answers["CreateTenant"] = refusal(Code.UNAVAILABLE, "STORE_UNAVAILABLE", "Gone.")

    first = run("tenants", "create", "acme")
    request_id = server.last.request.request_id
    assert f"Repeat safely with --request-id {request_id}." in first.err

    server.answers["CreateTenant"] = tenants_pb2.Tenant(name="tenants/acme")
    second = run("tenants", "create", "acme", "--request-id", request_id)

    assert second.code == 0
    assert server.last.request.request_id == request_id


def test_a_refusal_that_is_final_does_not_ask_for_a_repetition(server: CannedServer, run: Run) -> None:
    """Repeating what is wrong is of no use."""
    server.answers["CreateTenant"] = refusal(Code.INVALID_ARGUMENT, "INVALID_REQUEST", "Wrong.")

    result = run("tenants", "create", "acme")

    assert "--request-id" not in result.err


def test_a_server_that_is_not_there_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack, and what to look at."""
    monkeypatch.setenv("TOLLHOUSE_ENDPOINT", "127.0.0.1:1")
    monkeypatch.setenv("TOLLHOUSE_API_KEY", KEY)

    result = run("tenants", "list")

    assert result.code == 7
    assert result.err.startswith("error: UNAVAILABLE: No answer from 127.0.0.1:1")
    assert result.err.count("\n") == 1


def test_a_deadline_ends_the_wait(server: CannedServer, run: Run) -> None:
    """--timeout is sent as the call's deadline and is its end."""
    answered = threading.Event()

    def slow(_request: object) -> tenants_pb2.Tenant:
        answered.wait(5)
        return tenants_pb2.Tenant()

    server.answers["GetTenant"] = slow

    result = run("tenants", "show", "acme", "--timeout", "0.2")
    answered.set()

    assert result.code == 7
    assert "Give more time with --timeout." in result.err
    assert server.last.seconds_left is not None
    assert server.last.seconds_left < 0.3


def test_a_message_cannot_steer_the_terminal_or_show_a_key(server: CannedServer, run: Run) -> None:
    """What a server says is text: no control characters, no second line, no key that slipped in."""
    server.answers["GetTenant"] = Refusal(Code.INTERNAL, f"\x1b[2Jfirst\nsecond {KEY} AIza{'x' * 35}")

    result = run("tenants", "show", "acme", "--verbose")

    assert "\x1b" not in result.err.splitlines()[0]
    assert "first second [key removed] [key removed]" in result.err
    assert "verysecretpart" not in result.err + result.out


def test_a_broken_details_trailer_still_gives_the_message(server: CannedServer, run: Run) -> None:
    """A proxy between may mangle what is binary."""
    server.answers["GetTenant"] = Refusal(Code.NOT_FOUND, "Not here")

    result = run("tenants", "show", "acme")

    assert result.code == 4
    assert result.err.startswith("error: NOT_FOUND: Not here.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tenantz"],
        ["tenants", "list", "--nonsense"],
        ["tenants", "show"],
        ["limits", "create", "x", "--metric", "love", "--window", "day", "--amount", "1"],
        ["departments", "move", "research", "--tenant", "acme"],
        ["tenants", "update", "acme"],
        ["generate", "hi", "--tier", "flash", "--model", "gemini-3.5-flash"],
        ["generate", " "],
        ["generate", "hi", "--label", "nolabel"],
        ["upstream-keys", "show", "k"],
        ["projects", "show", "chat", "--tenant", "acme"],
        ["departments", "show", "foo/bar", "--tenant", "acme"],
    ],
)
def test_what_is_typed_wrong_is_a_usage_error_before_anything_is_sent(
    server: CannedServer, run: Run, arguments: list[str]
) -> None:
    """Exit code 2, one line, and no call."""
    result = run(*arguments)

    assert result.code == 2
    assert result.err.startswith("error: USAGE: ")
    assert result.err.count("\n") == 1
    assert server.received == []


IN_NO_PLACE = [
    (("projects", "list", "-d", "nope"), "ListProjects", projects_pb2.ListProjectsResponse()),
    (("limits", "list", "-d", "nope"), "ListLimits", limits_pb2.ListLimitsResponse()),
    (("limits", "list", "-d", "nope", "-p", "chat"), "ListLimits", limits_pb2.ListLimitsResponse()),
    (("keys", "list", "-d", "nope", "-p", "chat"), "ListApiKeys", api_keys_pb2.ListApiKeysResponse()),
    (("roles", "grants", "-d", "nope"), "ListRoleGrants", roles_pb2.ListRoleGrantsResponse()),
    (("charge-rules", "list", "-d", "nope"), "ListChargeRules", charge_rules_pb2.ListChargeRulesResponse()),
]


@pytest.mark.parametrize(("command", "method", "nothing"), IN_NO_PLACE)
def test_what_is_nowhere_is_not_merely_nothing(
    server: CannedServer, run: Run, command: tuple[str, ...], method: str, nothing: Message
) -> None:
    """A department whose id was typed wrong looked like an empty one."""
    missing = refusal(grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", "It does not exist.")
    server.answers |= {method: nothing, "GetDepartment": missing, "GetProject": missing}

    result = run(*command, "-t", "acme")

    assert (result.code, result.out) == (4, "")
    assert "RESOURCE_NOT_FOUND" in result.err
    assert server.last.request.name.startswith("tenants/acme/departments/nope")


@pytest.mark.parametrize("department", [("-d", "sales"), ()])
def test_nothing_in_a_place_is_nothing(server: CannedServer, run: Run, department: tuple[str, ...]) -> None:
    """Also for who may not look at the department itself."""
    denied = refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "Not yours.")
    server.answers |= {"ListProjects": projects_pb2.ListProjectsResponse(), "GetDepartment": denied}

    result = run("projects", "list", *department, "-t", "acme")

    assert (result.code, result.err) == (0, "nothing found\n")
