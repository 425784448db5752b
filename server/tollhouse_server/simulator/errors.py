"""Gemini's own error answers: `{"error": {code, message, status, details}}`.

The message texts and detail types follow the public API's answers (google.rpc.ErrorInfo, RetryInfo, QuotaFailure).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]

DEVELOPER = "generativelanguage.googleapis.com"
VERTEX = "aiplatform.googleapis.com"
_TYPE = "type.googleapis.com/google.rpc."
_SIGN_IN = "https://developers.google.com/identity/sign-in/web/devconsole-project."
_TOKEN_WANTED = f"Expected OAuth 2 access token, login cookie or other valid authentication credential. See {_SIGN_IN}"


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


@dataclass(frozen=True, slots=True)
class Violation:
    """One exceeded quota, as google.rpc.QuotaFailure names it; `metric` is without the service's name."""

    metric: str
    quota_id: str
    limit: int
    model: str
    location: str = "global"


def error_info(reason: str, **metadata: str) -> JsonObject:
    """Give a google.rpc.ErrorInfo."""
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
    return GeminiError(400, "INVALID_ARGUMENT", message, (error_info("API_KEY_INVALID", service=DEVELOPER), localized))


def api_key_invalid() -> GeminiError:
    """Refuse a key that was never accepted or was refused since."""
    return _bad_key("API key not valid. Please pass a valid API key.")


def api_key_expired() -> GeminiError:
    """Refuse a key whose expiry time has passed."""
    return _bad_key("API key expired. Please renew the API key.")


def _denied(message: str, *details: JsonObject) -> GeminiError:
    return GeminiError(403, "PERMISSION_DENIED", message, details)


def key_suspended(project: str, service: str = DEVELOPER) -> GeminiError:
    """Refuse a key whose project was suspended: 403, without naming the key."""
    info = error_info("CONSUMER_SUSPENDED", service=service, consumer=f"projects/{project}")
    return _denied(f"Permission denied: Consumer 'projects/{project}' has been suspended.", info)


def key_leaked() -> GeminiError:
    """Refuse a key that Google found in public and revoked: 403, without details."""
    return _denied("Your API key was reported as leaked. Please use another API key.")


def key_blocked() -> GeminiError:
    """Refuse a key whose restrictions leave the Gemini API out."""
    info = error_info("API_KEY_SERVICE_BLOCKED", service=DEVELOPER)
    return _denied(f"Requests to this API {DEVELOPER} are blocked.", info)


def key_missing() -> GeminiError:
    """Refuse a call without any credential."""
    return _denied(
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API consumer identity to call this API."
    )


def project_denied(project: str, service: str) -> GeminiError:
    """Refuse a known caller who has no rights in that project."""
    info = error_info("IAM_PERMISSION_DENIED", service=service, resource=f"projects/{project}")
    return _denied(f"Permission denied on resource project {project}.", info)


def credentials_missing(service: str) -> GeminiError:
    """Refuse a call without a token where only tokens count."""
    message = f"Request is missing required authentication credential. {_TOKEN_WANTED}"
    return GeminiError(401, "UNAUTHENTICATED", message, (error_info("CREDENTIALS_MISSING", service=service),))


def token_refused(service: str, reason: str = "ACCESS_TOKEN_EXPIRED") -> GeminiError:
    """Refuse a bearer token that is not, or no longer, good."""
    message = f"Request had invalid authentication credentials. {_TOKEN_WANTED}"
    return GeminiError(401, "UNAUTHENTICATED", message, (error_info(reason, service=service),))


def model_not_found(model: str, version: str, method: str) -> GeminiError:
    """Refuse a model that does not exist or does not support `method`; the text is the real API's."""
    message = (
        f"models/{model} is not found for API version {version}, or is not supported for {method}. "
        "Call ListModels to see the list of available models and their supported methods."
    )
    return GeminiError(404, "NOT_FOUND", message)


def publisher_model_not_found(project: str, region: str, model: str) -> GeminiError:
    """Refuse a model that Vertex does not have in that region."""
    name = f"projects/{project}/locations/{region}/publishers/google/models/{model}"
    message = (
        f"Publisher Model `{name}` was not found or your project does not have access to it. "
        "Please ensure you are using a valid model version."
    )
    return GeminiError(404, "NOT_FOUND", message)


def path_not_found() -> GeminiError:
    """Refuse a path that names no method."""
    return GeminiError(404, "NOT_FOUND", "Requested entity was not found.")


def quota_exceeded(
    *,
    model: str,
    retry_delay_seconds: float,
    quota_value: int = 10,
    service: str = DEVELOPER,
    location: str = "global",
) -> GeminiError:
    """Refuse with 429 for the requests of a minute."""
    violation = Violation(
        "generate_content_paid_tier_requests",
        "GenerateRequestsPerMinutePerProjectPerModel",
        quota_value,
        model,
        location,
    )
    return quotas_exceeded([violation], retry_delay_seconds=retry_delay_seconds, service=service)


def quotas_exceeded(violations: Sequence[Violation], *, retry_delay_seconds: float, service: str) -> GeminiError:
    """Refuse with 429 and the three details the real API sends: Help, QuotaFailure and RetryInfo."""
    delay = f"{retry_delay_seconds:.9f}".rstrip("0").rstrip(".")
    lines = [
        f"* Quota exceeded for metric: {service}/{each.metric}, limit: {each.limit}, model: {each.model}"
        for each in violations
    ]
    head = "You exceeded your current quota, please check your plan and billing details."
    link = {
        "description": "Learn more about Gemini API quotas",
        "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
    }
    details: tuple[JsonObject, ...] = (
        {"@type": f"{_TYPE}Help", "links": [link]},
        {"@type": f"{_TYPE}QuotaFailure", "violations": [_violation(each, service) for each in violations]},
        {"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{delay}s"},
    )
    message = "\n".join([head, *lines, f"Please retry in {delay}s."])
    return GeminiError(429, "RESOURCE_EXHAUSTED", message, details)


def _violation(violation: Violation, service: str) -> JsonObject:
    return {
        "quotaMetric": f"{service}/{violation.metric}",
        "quotaId": violation.quota_id,
        "quotaDimensions": {"location": violation.location, "model": violation.model},
        "quotaValue": str(violation.limit),
    }


def resource_exhausted() -> GeminiError:
    """Refuse with a 429 that says nothing more, as Vertex does when it shares out what it has."""
    return GeminiError(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.")


def internal() -> GeminiError:
    """Fail as Gemini fails inside."""
    return GeminiError(500, "INTERNAL", "An internal error has occurred. Please retry or report the error.")


def unavailable() -> GeminiError:
    """Fail as an overloaded model does."""
    return GeminiError(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")


def deadline_exceeded() -> GeminiError:
    """Fail as a call that ran out of its own time does."""
    return GeminiError(504, "DEADLINE_EXCEEDED", "The request timed out. Please try again.")
