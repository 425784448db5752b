"""From a fact to a status: the one table of error classes and google.rpc codes, and the details each one carries."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2, error_details_pb2, status_pb2
from tollhouse.v1 import errors_pb2

from tollhouse_server import errors
from tollhouse_server.api.status_sizes import FIELD_BYTES, MESSAGE_BYTES, first_violations, shortened
from tollhouse_server.api.values import limit_unit, selected, timestamp
from tollhouse_server.errors import TollhouseError
from tollhouse_server.ledger.terms import Metric

DOMAIN = "tollhouse"

CODES: Mapping[type[TollhouseError], int] = {
    errors.CredentialsInvalid: code_pb2.UNAUTHENTICATED,
    errors.IdentityProviderUnavailable: code_pb2.UNAVAILABLE,
    errors.PermissionDenied: code_pb2.PERMISSION_DENIED,
    errors.DutiesConflict: code_pb2.FAILED_PRECONDITION,
    errors.GroupFull: code_pb2.FAILED_PRECONDITION,
    errors.InvalidRequest: code_pb2.INVALID_ARGUMENT,
    errors.RequestTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.RequestIdReused: code_pb2.ALREADY_EXISTS,
    errors.DuplicateRequest: code_pb2.ALREADY_EXISTS,
    errors.DeadlineTooShort: code_pb2.DEADLINE_EXCEEDED,
    errors.ModelUnknown: code_pb2.NOT_FOUND,
    errors.TierAutoOff: code_pb2.NOT_FOUND,
    errors.ModelNotAllowed: code_pb2.PERMISSION_DENIED,
    errors.RegionNotAllowed: code_pb2.PERMISSION_DENIED,
    errors.OnDeviceOnly: code_pb2.FAILED_PRECONDITION,
    errors.DataPolicyBlocked: code_pb2.FAILED_PRECONDITION,
    errors.ModelShutDown: code_pb2.FAILED_PRECONDITION,
    errors.ModelUnpriced: code_pb2.FAILED_PRECONDITION,
    errors.PriceFileInvalid: code_pb2.INVALID_ARGUMENT,
    errors.PricesImplausible: code_pb2.INVALID_ARGUMENT,
    errors.PriceProposalOutdated: code_pb2.ABORTED,
    errors.LimitExceeded: code_pb2.RESOURCE_EXHAUSTED,
    errors.BudgetCutOff: code_pb2.RESOURCE_EXHAUSTED,
    errors.StoreUnavailable: code_pb2.UNAVAILABLE,
    errors.StoreLostMidStream: code_pb2.UNAVAILABLE,
    errors.UpstreamRefused: code_pb2.INVALID_ARGUMENT,
    errors.UpstreamExhausted: code_pb2.RESOURCE_EXHAUSTED,
    errors.UpstreamUnavailable: code_pb2.UNAVAILABLE,
    errors.UpstreamOutcomeUnknown: code_pb2.ABORTED,
    errors.UsageMissing: code_pb2.ABORTED,
    errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    errors.TargetsUnhealthy: code_pb2.UNAVAILABLE,
    errors.NoUpstreamKey: code_pb2.FAILED_PRECONDITION,
    errors.VaultUnavailable: code_pb2.UNAVAILABLE,
    errors.VaultDenied: code_pb2.FAILED_PRECONDITION,
    errors.SecretMissing: code_pb2.FAILED_PRECONDITION,
    errors.RotationUnderWay: code_pb2.FAILED_PRECONDITION,
    errors.KeyProviderFailed: code_pb2.UNAVAILABLE,
    errors.ContentNotKept: code_pb2.UNAVAILABLE,
    errors.KeyDestroyed: code_pb2.FAILED_PRECONDITION,
    errors.Unreadable: code_pb2.DATA_LOSS,
    errors.DeviceKeyInUse: code_pb2.ALREADY_EXISTS,
    errors.ResourceNotFound: code_pb2.NOT_FOUND,
    errors.ResourceExists: code_pb2.ALREADY_EXISTS,
    errors.ResourceInUse: code_pb2.FAILED_PRECONDITION,
    errors.EtagMismatch: code_pb2.ABORTED,
    errors.MergeObstructed: code_pb2.FAILED_PRECONDITION,
    errors.DepartmentRing: code_pb2.FAILED_PRECONDITION,
    errors.WrongState: code_pb2.FAILED_PRECONDITION,
    errors.SecondPersonNeeded: code_pb2.PERMISSION_DENIED,
    errors.RequesterOnly: code_pb2.PERMISSION_DENIED,
    errors.ServerDraining: code_pb2.UNAVAILABLE,
    errors.RecordsDropped: code_pb2.FAILED_PRECONDITION,
    errors.ExportMismatch: code_pb2.FAILED_PRECONDITION,
    errors.MonthNotDroppable: code_pb2.FAILED_PRECONDITION,
    errors.DeliveryNotSetUp: code_pb2.FAILED_PRECONDITION,
    errors.FontMissing: code_pb2.FAILED_PRECONDITION,
    errors.PeriodClosed: code_pb2.FAILED_PRECONDITION,
    errors.PeriodObstructed: code_pb2.FAILED_PRECONDITION,
}

# What Google answered decides the code of a refusal that is passed on.
_UPSTREAM_CODES = {
    400: code_pb2.INVALID_ARGUMENT,
    403: code_pb2.FAILED_PRECONDITION,
    404: code_pb2.FAILED_PRECONDITION,
}


def status_of(error: TollhouseError, correlation_id: str) -> status_pb2.Status:
    """Return the google.rpc.Status of a fact: code, sentence, ErrorInfo, details; all of it short enough to arrive."""
    code = CODES[type(error)]
    if isinstance(error, errors.UpstreamRefused):
        code = _UPSTREAM_CODES.get(error.http_status, code)
    status = status_pb2.Status(code=code, message=shortened(error.message(), MESSAGE_BYTES))
    details = [_error_info(error, correlation_id), *(detail(error) for detail in _DETAILS.get(type(error), ()))]
    for message in details:
        if message is not None:
            status.details.add().Pack(message)
    return status


def internal_status(correlation_id: str) -> status_pb2.Status:
    """Return the status of a defect: no text of the exception, only the id under which the log has it."""
    status = status_pb2.Status(
        code=code_pb2.INTERNAL, message=f"Internal error; an operator finds it in the log as {correlation_id}."
    )
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"correlation_id": correlation_id})
    status.details.add().Pack(info)
    return status


def _error_info(error: TollhouseError, correlation_id: str) -> error_details_pb2.ErrorInfo:
    fields = {
        name: _text(value) for name, value in vars(error).items() if isinstance(value, str | int | float | datetime)
    }
    return error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata=fields | {"correlation_id": correlation_id}
    )


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else shortened(str(value), FIELD_BYTES)


def _bad_request(error: Any) -> Message:
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=violation.path, description=violation.description)
        for violation in first_violations(error.violations)
    ]
    return error_details_pb2.BadRequest(field_violations=violations)


def _retry_info(error: Any) -> Message | None:
    if error.retry_after_seconds is None:
        return None
    delay = Duration()
    delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _quota_failure(error: Any) -> Message:
    description = f"{error.metric} per {error.window}: {error.amount}"
    violation = error_details_pb2.QuotaFailure.Violation(subject=error.limit, description=description)
    return error_details_pb2.QuotaFailure(violations=[violation])


def _limit_state(error: Any) -> Message:
    tier, model = selected(error.selector)
    return errors_pb2.LimitState(
        limit=error.limit,
        scope=error.scope,
        tier=tier,
        model=model,
        metric=error.metric,
        window=error.window,
        unit=limit_unit(Metric(error.metric)),
        amount=error.amount,
        held=error.held,
        settled=error.settled,
        requested=error.requested,
        resets_at=timestamp(error.resets_at),
    )


def _upstream_error(error: Any) -> Message | None:
    body = error.body.get("error")
    if not isinstance(body, Mapping):
        return None
    found = body.get("details")
    return errors_pb2.UpstreamError(
        http_status=int(body.get("code", 0)),
        status=str(body.get("status", "")),
        message=str(body.get("message", "")),
        details=[ParseDict(detail, Struct()) for detail in found if isinstance(detail, dict)]
        if isinstance(found, list)
        else [],
    )


_DETAILS: Mapping[type[TollhouseError], tuple[Callable[[Any], Message | None], ...]] = {
    errors.InvalidRequest: (_bad_request,),
    errors.PriceFileInvalid: (_bad_request,),
    errors.PricesImplausible: (_bad_request,),
    errors.LimitExceeded: (_retry_info, _quota_failure, _limit_state),
    errors.BudgetCutOff: (_retry_info, _quota_failure, _limit_state),
    errors.UpstreamExhausted: (_retry_info, _upstream_error),
    errors.UpstreamRefused: (_upstream_error,),
    errors.DeadlineTooShort: (_retry_info,),
    errors.Overloaded: (_retry_info,),
    errors.TargetsUnhealthy: (_retry_info,),
}
