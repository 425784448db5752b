"""Gemini's own error answers: `{"error": {code, message, status, details}}`.

The message texts and detail types follow the public API's answers (google.rpc.ErrorInfo, RetryInfo, QuotaFailure).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]

_TYPE = "type.googleapis.com/google.rpc."
_SERVICE = "generativelanguage.googleapis.com"


@dataclass(slots=True)
class GeminiError(Exception):
    """A refusal in Gemini's shape; never a served, billed call."""

    code: int
    status: str
    message: str
    details: tuple[JsonObject, ...] = ()

    def body(self) -> JsonObject:
        """Give the answer's JSON body."""
        error: JsonObject = {"code": self.code, "message": self.message, "status": self.status}
        if self.details:
            error["details"] = list(self.details)
        return {"error": error}


def _error_info(reason: str, **metadata: str) -> JsonObject:
    return {"@type": f"{_TYPE}ErrorInfo", "reason": reason, "domain": "googleapis.com", "metadata": metadata}


def invalid_argument(message: str, *, field: str | None = None) -> GeminiError:
    """Refuse a malformed request; `field` adds a google.rpc.BadRequest violation."""
    details: tuple[JsonObject, ...] = ()
    if field is not None:
        violation = {"field": field, "description": message}
        details = ({"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]},)
    return GeminiError(400, "INVALID_ARGUMENT", message, details)


def _bad_key(message: str) -> GeminiError:
    localized = {"@type": f"{_TYPE}LocalizedMessage", "locale": "en-US", "message": message}
    return GeminiError(400, "INVALID_ARGUMENT", message, (_error_info("API_KEY_INVALID", service=_SERVICE), localized))


def api_key_invalid() -> GeminiError:
    """Refuse a key that was never accepted or was refused since."""
    return _bad_key("API key not valid. Please pass a valid API key.")


def api_key_expired() -> GeminiError:
    """Refuse a key whose expiry time has passed."""
    return _bad_key("API key expired. Please renew the API key.")


def key_suspended(project: str) -> GeminiError:
    """Refuse a key whose project was suspended: 403, without naming the key."""
    info = _error_info("CONSUMER_SUSPENDED", service=_SERVICE, consumer=f"projects/{project}")
    message = f"Permission denied: Consumer 'projects/{project}' has been suspended."
    return GeminiError(403, "PERMISSION_DENIED", message, (info,))


def key_missing() -> GeminiError:
    """Refuse a call without any credential."""
    message = (
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API consumer identity to call this API."
    )
    return GeminiError(403, "PERMISSION_DENIED", message)


def model_not_found(model: str, version: str, method: str) -> GeminiError:
    """Refuse a model that does not exist or does not support `method`; the text is the real API's."""
    message = (
        f"models/{model} is not found for API version {version}, or is not supported for {method}. "
        "Call ListModels to see the list of available models and their supported methods."
    )
    return GeminiError(404, "NOT_FOUND", message)


def path_not_found() -> GeminiError:
    """Refuse a path that names no method."""
    return GeminiError(404, "NOT_FOUND", "Requested entity was not found.")


def quota_exceeded(*, model: str, retry_delay_seconds: float, quota_value: int = 10) -> GeminiError:
    """Refuse with 429 and the three details the real API sends: Help, QuotaFailure and RetryInfo."""
    metric = f"{_SERVICE}/generate_content_paid_tier_requests"
    violation: JsonObject = {
        "quotaMetric": metric,
        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel",
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": str(quota_value),
    }
    delay = f"{retry_delay_seconds:.9f}".rstrip("0").rstrip(".")
    message = (
        "You exceeded your current quota, please check your plan and billing details.\n"
        f"* Quota exceeded for metric: {metric}, limit: {quota_value}, model: {model}\nPlease retry in {delay}s."
    )
    link = {
        "description": "Learn more about Gemini API quotas",
        "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
    }
    details: tuple[JsonObject, ...] = (
        {"@type": f"{_TYPE}Help", "links": [link]},
        {"@type": f"{_TYPE}QuotaFailure", "violations": [violation]},
        {"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{delay}s"},
    )
    return GeminiError(429, "RESOURCE_EXHAUSTED", message, details)


def internal() -> GeminiError:
    """Fail as Gemini fails inside."""
    return GeminiError(500, "INTERNAL", "An internal error has occurred. Please retry or report the error.")


def unavailable() -> GeminiError:
    """Fail as an overloaded model does."""
    return GeminiError(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")


def deadline_exceeded() -> GeminiError:
    """Fail as a call that ran out of its own time does."""
    return GeminiError(504, "DEADLINE_EXCEEDED", "The request timed out. Please try again.")
