"""What the end of an attempt says about the health of its target."""

from enum import StrEnum

from tollhouse_server.upstream.protocol import NotSent, Refused


class Verdict(StrEnum):
    """What a breaker learns from one attempt."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    IGNORED = "IGNORED"
    """It says nothing about the target: a refused request, an exhausted quota, a call that we ended ourselves."""


def is_fault_of_target(outage: NotSent | Refused) -> bool:
    """Tell whether an attempt that cost nothing failed for want of health of its target.

    The statuses are those of ai.google.dev/gemini-api/docs/troubleshooting: 500, 502, 503 and 504 count, and so does
    what is no answer of Gemini's; a refused request, key or quota says nothing of who refused it.
    """
    return not (isinstance(outage, Refused) and 400 <= outage.http_status < 500)
