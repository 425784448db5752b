"""What a refusal by the upstream means: whether another target may be asked, and what the caller is told.

400 and 404 are the caller's, 401 and 403 the key's, 429 the project's, 5xx the upstream's
(ai.google.dev/gemini-api/docs/troubleshooting, read November 2026).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tollhouse_server.errors import TollhouseError, UpstreamExhausted, UpstreamRefused, UpstreamUnavailable
from tollhouse_server.telemetry.redaction import redacted, redacted_value
from tollhouse_server.upstream.protocol import NotSent, Refused

Outage = NotSent | Refused
"""An attempt that is known to have cost nothing."""

_CALLERS_OWN = frozenset({400, 404, 413, 422})
_LONGEST_DELAY_SECONDS = 86_400.0
# Status, ErrorInfo, details and grpc-message repeat the words, and a caller's gRPC takes 8 KiB of trailers.
_MAX_MESSAGE_BYTES = 800
_MAX_DETAILS_BYTES = 1500
_MAX_STATUS_BYTES = 50
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")


def may_go_elsewhere(error: Outage) -> bool:
    """Tell whether another target may succeed where this one refused, at no risk of a second charge."""
    return isinstance(error, NotSent) or error.http_status not in _CALLERS_OWN or is_key_refused(error)


def is_key_refused(error: Refused) -> bool:
    """Tell whether the upstream refused our key, not the request (Google answers 400 API_KEY_INVALID, 401 or 403)."""
    if error.http_status in {401, 403}:
        return True
    return any(detail.get("reason") == "API_KEY_INVALID" for detail in _details(error.error))


def is_out_of_quota(error: Refused) -> bool:
    """Tell whether the account is at a quota of its project: later, or in another project, there is room."""
    return error.http_status == 429


def is_overloaded(error: Refused) -> bool:
    """Tell whether the upstream has too many calls at the moment, or is not there: which of both is seen by others."""
    return error.http_status == 503


def quota_violations(error: Refused) -> tuple[Mapping[str, Any], ...]:
    """Return what Google's QuotaFailure names as passed, empty where the answer has none."""
    lists = [found for detail in _details(error.error) if isinstance(found := detail.get("violations"), list)]
    return tuple(violation for named in lists for violation in named if isinstance(violation, Mapping))


def refusal_of(errors: Sequence[Outage]) -> TollhouseError:
    """Return the fact that the caller is told when no target served the call; `errors` has one per attempt."""
    last = errors[-1]
    if isinstance(last, Refused) and not may_go_elsewhere(last):
        return UpstreamRefused(
            http_status=last.http_status,
            status=_status(last),
            upstream_message=_message(last),
            body=_told(last),
        )
    exhausted = [error for error in errors if isinstance(error, Refused) and is_out_of_quota(error)]
    if len(exhausted) == len(errors):
        delays = [delay for delay in (retry_delay_seconds(error) for error in exhausted) if delay is not None]
        return UpstreamExhausted(retry_after_seconds=min(delays, default=None), body=_told(exhausted[-1]))
    return UpstreamUnavailable(attempts=len(errors), last_error=str(last))


def retry_delay_seconds(error: Refused) -> float | None:
    """Return the delay that RetryInfo asks for, in seconds; a day at the most, after which every quota is new."""
    for detail in _details(error.error):
        found = _SECONDS.fullmatch(str(detail.get("retryDelay", "")))
        if found:
            return min(float(found[1]), _LONGEST_DELAY_SECONDS)
    return None


def _status(error: Refused) -> str:
    return _cut(redacted(str(error.error.get("status", "UNKNOWN"))), _MAX_STATUS_BYTES)


def _message(error: Refused) -> str:
    return _cut(redacted(str(error.error.get("message", "no message"))), _MAX_MESSAGE_BYTES)


def _told(error: Refused) -> dict[str, Any]:
    """Return the body as the caller gets it: redacted, and its details as far as there is room for them."""
    details, room = [], _MAX_DETAILS_BYTES
    for detail in _details(error.error):
        told = redacted_value(detail)
        size = len(orjson.dumps(told))
        if size <= room:
            details.append(told)
            room -= size
    code = error.error.get("code", error.http_status)
    return {"error": {"code": code, "status": _status(error), "message": _message(error), "details": details}}


def _cut(text: str, most_bytes: int) -> str:
    whole = text.encode()
    return text if len(whole) <= most_bytes else whole[: most_bytes - 3].decode("utf-8", "ignore") + "…"


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, Mapping)] if isinstance(details, list) else []
