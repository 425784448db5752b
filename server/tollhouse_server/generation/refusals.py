"""What a refusal by the upstream means: whether another target may be asked, and what the caller is told.

400 and 404 are the caller's, 401 and 403 the key's, 429 the project's, 5xx the upstream's
(ai.google.dev/gemini-api/docs/troubleshooting, read November 2026).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tollhouse_server.errors import TollhouseError, UpstreamExhausted, UpstreamRefused, UpstreamUnavailable
from tollhouse_server.telemetry.redaction import redacted, redacted_value
from tollhouse_server.upstream.protocol import NotSent, Refused

Outage = NotSent | Refused
"""An attempt that is known to have cost nothing."""

_CALLERS_OWN = frozenset({400, 404, 413, 422})
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


def quota_violations(error: Refused) -> tuple[Mapping[str, Any], ...]:
    """Return what Google's QuotaFailure names as passed, empty where the answer has none."""
    named = [violation for detail in _details(error.error) for violation in detail.get("violations") or ()]
    return tuple(violation for violation in named if isinstance(violation, Mapping))


def refusal_of(errors: Sequence[Outage]) -> TollhouseError:
    """Return the fact that the caller is told when no target served the call; `errors` has one per attempt."""
    last = errors[-1]
    if isinstance(last, Refused) and not may_go_elsewhere(last):
        return UpstreamRefused(
            http_status=last.http_status,
            status=str(last.error.get("status", "UNKNOWN")),
            upstream_message=redacted(str(last.error.get("message", "no message"))),
            body=redacted_value(last.body),
        )
    exhausted = [error for error in errors if isinstance(error, Refused) and is_out_of_quota(error)]
    if len(exhausted) == len(errors):
        delays = [delay for delay in (retry_delay_seconds(error) for error in exhausted) if delay is not None]
        return UpstreamExhausted(retry_after_seconds=min(delays, default=None), body=redacted_value(exhausted[-1].body))
    return UpstreamUnavailable(attempts=len(errors), last_error=str(last))


def retry_delay_seconds(error: Refused) -> float | None:
    """Return the delay that Google's RetryInfo asks for, in seconds."""
    for detail in _details(error.error):
        found = _SECONDS.fullmatch(str(detail.get("retryDelay", "")))
        if found:
            return float(found[1])
    return None


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, Mapping)] if isinstance(details, list) else []
