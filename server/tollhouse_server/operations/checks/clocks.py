"""Whether clocks agree: budgets end and keys expire by them."""

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from tollhouse_server.operations.checks import store
from tollhouse_server.operations.checks.terms import Finding, Surroundings, failure, fine, skipped, warning

_TIMEOUT_SECONDS: Final = 2.5
_WARNING_SECONDS, _FAILURE_SECONDS = 1.0, 5.0
# What an HTTP date leaves out, and what an answer takes.
_HTTP_SECONDS: Final = 2.0
_SET: Final = "Have both hosts' clocks set by NTP: timedatectl status"


async def database(surroundings: Surroundings) -> Finding:
    """Hold PostgreSQL's clock against ours."""
    async with surroundings.database.single_query() as session:
        before = time.time()
        theirs = (await store.now(session)).timestamp()
        after = time.time()
    # Somewhere between the question and the answer.
    apart = max(0.0, before - theirs, theirs - after)
    return _judged(apart, "PostgreSQL's clock and ours", slack_seconds=0.0)


async def google(surroundings: Surroundings) -> Finding:
    """Hold the clock of the upstream against ours: the date of any answer of its, without a key."""
    url = surroundings.settings.gemini_base_url
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.head(url) as answer:
            said = answer.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError) as error:
        # Accounts may go through proxies that this does not: whether calls arrive, the probe says.
        return skipped(f"{url} is not reached from here directly ({type(error).__name__})")
    if said is None:
        return skipped(f"{url} does not say what time it is")
    try:
        theirs = parsedate_to_datetime(said)
    except ValueError:
        return skipped(f"{url} says what time it is in words that nobody knows")
    # One without a zone is what `-0000` gives: UTC, as all dates of HTTP.
    apart = abs(((theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
    return _judged(apart, f"the clock of {url} and ours", slack_seconds=_HTTP_SECONDS)


def _judged(apart_seconds: float, whose: str, *, slack_seconds: float) -> Finding:
    beyond = max(0.0, apart_seconds - slack_seconds)
    if beyond <= _WARNING_SECONDS:
        limit = _WARNING_SECONDS + slack_seconds
        return fine(f"{whose} are less than {limit:.0f} s apart")
    judge = failure if beyond > _FAILURE_SECONDS else warning
    return judge(f"{whose} are {apart_seconds:.1f} s apart", _SET)
