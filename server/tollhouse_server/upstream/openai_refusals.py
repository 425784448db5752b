"""From the errors of an OpenAI-compatible server to Gemini's, with what it says about when to come back."""

import email.utils
import time
from collections.abc import Mapping
from typing import Any

from tollhouse_server.upstream.protocol import Refused

_TYPE = "type.googleapis.com/google.rpc."
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_DETAILS = ("code", "type", "param")


def refusal(status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> Refused:
    """Return an error answer in Gemini's shape."""
    reported = _reported(body)
    message = reported.get("message")
    error: dict[str, Any] = {
        "code": status,
        "message": message if isinstance(message, str) and message else f"HTTP {status}",
        "status": _STATUSES.get(status, "UNKNOWN"),
    }
    details = [*_error_info(reported), *_retry_info(headers)]
    return Refused(status, {"error": error | ({"details": details} if details else {})})


def cannot_count() -> Refused:
    """Return the refusal of countTokens by a server that has no way to count."""
    message = "The upstream cannot count tokens: it answers neither /apply-template nor /tokenize."
    return Refused(404, {"error": {"code": 404, "message": message, "status": "NOT_FOUND"}})


def _reported(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the error's object: OpenAI nests it, vLLM has sent it flat, FastAPI calls its message `detail`."""
    error = body.get("error", body)
    if isinstance(error, Mapping):
        return error if "message" in error else {"message": _text(error.get("detail"))}
    return {"message": _text(error)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _error_info(reported: Mapping[str, Any]) -> list[dict[str, Any]]:
    metadata = {name: str(reported[name]) for name in _DETAILS if isinstance(reported.get(name), str | int)}
    # llama.cpp repeats the HTTP status as the code.
    reason = next((word for word in (metadata.get("code"), metadata.get("type")) if word and not word.isdecimal()), "")
    if not reason:
        return []
    return [{"@type": f"{_TYPE}ErrorInfo", "reason": reason.upper(), "domain": "openai", "metadata": metadata}]


def _retry_info(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    seconds = _seconds(headers.get("retry-after"))
    if seconds is None:
        return []
    return [{"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{seconds:g}s"}]


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After header: seconds or a date (RFC 9110, 10.2.3); None for neither."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return round(max(seconds, 0.0), 3) if seconds < 1e9 else None
