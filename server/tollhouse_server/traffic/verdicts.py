"""What the end of an attempt says about the health of its target."""

from asyncio import CancelledError
from enum import StrEnum

from tollhouse_server.upstream.protocol import Refused


class Verdict(StrEnum):
    """What a breaker learns from one attempt."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    IGNORED = "IGNORED"
    """It says nothing about the target: a refused request, an exhausted quota, a call that we ended ourselves."""


def verdict_of(error: BaseException | None, *, cut_short: bool = False) -> Verdict:
    """Return what an attempt that ended in `error` (None: an answer) says about its target.

    `cut_short` is an attempt that our caller's deadline ended: whoever asks for an answer within a millisecond must not
    take a target away from all others. The statuses are those of ai.google.dev/gemini-api/docs/troubleshooting.
    """
    if error is None:
        return Verdict.SUCCESS
    if cut_short or isinstance(error, CancelledError):
        return Verdict.IGNORED
    if isinstance(error, Refused) and 400 <= error.http_status < 500:
        return Verdict.IGNORED
    # HTTP 500, 502, 503, 504; refused and reset connections; silence; what is no HTTP, no JSON, no answer of Gemini.
    return Verdict.FAILURE
