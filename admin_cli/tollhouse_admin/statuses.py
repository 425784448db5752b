"""Turns what gRPC reports into a Failure: the reason, the message, what to do, and the exit code."""

from collections.abc import Mapping
from typing import Any, cast

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from tollhouse.v1 import errors_pb2

from tollhouse_admin.amounts import dollars_of_nanos, dollars_text
from tollhouse_admin.failures import ExitCode, Failure, sentence

DETAILS_KEY = "grpc-status-details-bin"

EXIT_CODES: Mapping[grpc.StatusCode, ExitCode] = {
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.DENIED,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.DENIED,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.INVALID,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.INVALID,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.INVALID,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.INVALID,
    grpc.StatusCode.ABORTED: ExitCode.INVALID,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: ExitCode.INTERRUPTED,
}

# The outcome may be unknown: here the same request id makes a repetition safe.
REPEATABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
}

ADVICE: Mapping[str, str] = {
    "CREDENTIALS_INVALID": "See 'tollhouse config show'; set another key: tollhouse config set NAME --key-file FILE",
    "MODEL_UNKNOWN": "'tollhouse models tiers' and 'tollhouse models list' show the names",
    "MODEL_UNPRICED": "An operator can load prices: tollhouse prices import FILE",
    "LIMIT_EXCEEDED": "'tollhouse usage limits' shows what is left; wait, ask for less, or have it raised",
    "BUDGET_CUT_OFF": "'tollhouse usage limits' shows what is left; what was produced is charged",
    "DUPLICATE_REQUEST": "'tollhouse usage receipt REQUEST_ID' shows what became of it",
    "SECOND_PERSON_NEEDED": (
        "Ask somebody else who may: limit-approver or tenant-admin; for prices price-keeper, for a close finance"
    ),
    "PERIOD_CLOSED": "Correct it in a later month: tollhouse report adjust --for-month YYYY-MM",
    "PERIOD_OBSTRUCTED": "'tollhouse report period YYYY-MM' lists all that stands against it",
    "PRICES_IMPLAUSIBLE": "Mend the file, or if it is meant, give --max-jump or --allow-jumps with --reason",
    "PRICE_PROPOSAL_OUTDATED": "Propose it anew: tollhouse prices propose FILE",
    "REQUESTER_ONLY": "Who may approve it can turn it down: tollhouse limits increases reject",
    "WRONG_STATE": "'show' tells its state, 'tollhouse audit search --resource NAME' who brought it there",
    "MERGE_OBSTRUCTED": "For limits of its own give --limits transfer or --limits end",
    "ETAG_MISMATCH": "Look at it again with 'show' and repeat with its new etag",
    "NO_UPSTREAM_KEY": "An operator can add one: tollhouse upstream-keys add",
    "UPSTREAM_OUTCOME_UNKNOWN": "'tollhouse usage records' shows how it is booked",
    "DEADLINE_TOO_SHORT": "Give more time with --timeout",
    "DEADLINE_EXCEEDED": "Give more time with --timeout",
    "UNIMPLEMENTED": "The server may be older than this command line",
}

_UNANSWERED = "Check that the server runs and that 'tollhouse config show' names the right endpoint"


def failure_of(error: grpc.RpcError, *, target: str, request_id: str = "") -> Failure:
    """Return what a failed call to the server at `target` means; `request_id` is that of a call worth repeating."""
    code, message, trailers = _facts(error)
    details = _details(trailers)
    told = details.get(error_details_pb2.ErrorInfo)
    reason = told[0].reason if told else code.name
    if not told and code is grpc.StatusCode.UNAVAILABLE:
        message, advice = f"No answer from {target} ({message})", _UNANSWERED
    else:
        advice = ADVICE.get(reason, "")
    repeat = f"Repeat safely with --request-id {request_id}" if request_id and code in REPEATABLE else ""
    limits = details.get(errors_pb2.LimitState, [])
    if reason == "LIMIT_EXCEEDED" and limits:
        # The server's sentence is in nano-dollars; the facts are all in the detail.
        told_text = "No room in " + " ".join(_limit_text(state) for state in limits)
    else:
        told_text = " ".join([sentence(message), *_facts_beyond(message, details)])
    return Failure(
        reason=reason,
        message=told_text,
        advice=" ".join(sentence(part) for part in (_wait(details), advice, repeat) if part),
        exit_code=EXIT_CODES.get(code, ExitCode.GENERAL),
        details={"code": code.name, "message": message, "details": _as_json(details)},
    )


def _facts(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, Mapping[str, Any]]:
    if not hasattr(error, "trailing_metadata"):
        return grpc.StatusCode.UNKNOWN, type(error).__name__, {}
    # What a call raises is the call itself, too.
    call = cast(grpc.Call, error)
    trailers = {item[0]: item[1] for item in call.trailing_metadata() or ()}
    return call.code(), call.details() or "", trailers


_DETAIL_TYPES: tuple[Any, ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
    error_details_pb2.RetryInfo,
    error_details_pb2.RequestInfo,
    errors_pb2.LimitState,
    errors_pb2.UpstreamError,
)


def _details(trailers: Mapping[str, Any]) -> dict[type, list[Any]]:
    """Return the known details of the status by their type; what cannot be read counts as absent."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(trailers.get(DETAILS_KEY, b""))
    except ValueError:
        return {}
    found: dict[type, list[Any]] = {}
    for packed in status.details:
        for kind in _DETAIL_TYPES:
            if packed.Is(kind.DESCRIPTOR):
                unpacked = kind()
                packed.Unpack(unpacked)
                found.setdefault(kind, []).append(unpacked)
    return found


def _as_json(details: Mapping[type, list[Any]]) -> list[dict[str, Any]]:
    return [
        {"@type": detail.DESCRIPTOR.full_name, **MessageToDict(detail)}
        for same_kind in details.values()
        for detail in same_kind
    ]


def _facts_beyond(message: str, details: Mapping[type, list[Any]]) -> list[str]:
    """Return what the details say and `message` does not: wrong fields, the state of limits, Google's words."""
    fields = [
        sentence(f"{violation.field}: {violation.description}")
        for bad in details.get(error_details_pb2.BadRequest, [])
        for violation in bad.field_violations
        if violation.description not in message
    ]
    limits = [_limit_text(state) for state in details.get(errors_pb2.LimitState, [])]
    upstream = [
        sentence(f"Google said: {answer.status} {answer.message}")
        for answer in details.get(errors_pb2.UpstreamError, [])
        if answer.message not in message
    ]
    return [*fields, *(limits or _quotas(message, details)), *upstream]


def _quotas(message: str, details: Mapping[type, list[Any]]) -> list[str]:
    return [
        sentence(f"{violation.subject}: {violation.description}")
        for quota in details.get(error_details_pb2.QuotaFailure, [])
        for violation in quota.violations
        if violation.description not in message
    ]


def _limit_text(state: errors_pb2.LimitState) -> str:
    def amount(units: int) -> str:
        return f"${dollars_text(dollars_of_nanos(units))}" if state.unit == "nanos" else f"{units}"

    parts = [f"{name} {amount(getattr(state, name))}" for name in ("amount", "held", "settled")]
    if state.HasField("requested"):
        parts.append(f"requested {amount(state.requested)}")
    if state.HasField("resets_at"):
        parts.append(f"resets {state.resets_at.ToJsonString()}")
    counted = f"{state.metric} per {state.window}".lower().replace("_", " ")
    return sentence(f"{state.limit} ({counted}): {', '.join(parts)}")


def _wait(details: Mapping[type, list[Any]]) -> str:
    for retry in details.get(error_details_pb2.RetryInfo, []):
        seconds: int = retry.retry_delay.seconds + (1 if retry.retry_delay.nanos else 0)
        if seconds:
            return f"Try again in {seconds} s"
    return ""
