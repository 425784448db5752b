"""Runs checks: all at once, each for a few seconds at the most, so that nothing that hangs keeps the others back."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from tollhouse_server.errors import StoreUnavailable, TollhouseError, VaultUnavailable
from tollhouse_server.operations.checks.scrape import NoMetrics
from tollhouse_server.operations.checks.terms import Check, Finding, Outcome, Result, Surroundings, failure, skipped

LONGEST_SECONDS: Final = 3.0
"""How long a check may take; one that asks an upstream is given as long."""

_log = structlog.get_logger(__name__)

Open = Callable[[bool], AbstractAsyncContextManager[Surroundings]]
"""Opens what checks look at; the argument says whether upstreams may be probed."""


class Diagnosis:
    """Checks this server when asked, one diagnosis at a time: whoever asks often gets no more than that."""

    def __init__(self, surroundings: Open) -> None:
        self._surroundings = surroundings
        self._running = asyncio.Lock()

    async def run(self, *, prefixes: tuple[str, ...] = (), probes: bool = False) -> Sequence[Result]:
        """Make the checks whose names begin with one of `prefixes`, all without any; results in a fixed order."""
        async with self._running, self._surroundings(probes) as surroundings:
            checks_for = await asyncio.to_thread(_load_checks)
            wanted = [one for one in checks_for(surroundings) if not prefixes or one.name.startswith(prefixes)]
            return await run_checks(wanted, surroundings)


def _load_checks() -> Callable[[Surroundings], Iterable[Check]]:
    """Return what names the checks: 5 MB and a tenth of a second, which a worker that nobody asks is spared."""
    from tollhouse_server.operations.checks.registry import checks_for  # noqa: PLC0415

    return checks_for


async def run_checks(checks: Iterable[Check], surroundings: Surroundings) -> Sequence[Result]:
    """Make all checks at once, but for those that need another, which come after it; what goes wrong is a result."""
    wanted = list(checks)
    found = await _at_once([one for one in wanted if not one.needs], surroundings)
    failed = {result.name for result in found if result.finding.outcome is Outcome.FAILURE}
    idle = [one for one in wanted if one.needs in failed]
    found += [Result(name=one.name, finding=skipped(f"see {one.needs}"), seconds=0.0) for one in idle]
    found += await _at_once([one for one in wanted if one.needs and one.needs not in failed], surroundings)
    order = {check.name: index for index, check in enumerate(wanted)}
    return sorted(found, key=lambda result: order[result.name])


async def _at_once(checks: Sequence[Check], surroundings: Surroundings) -> list[Result]:
    found = await asyncio.gather(*(_timed(one, surroundings) for one in checks), return_exceptions=True)
    return [_result(check, result) for check, result in zip(checks, found, strict=True)]


def _result(check: Check, found: Result | BaseException) -> Result:
    """Return the result, that of a mistake in the check itself too: the others are wanted all the more then."""
    if isinstance(found, Result):
        return found
    if not isinstance(found, Exception):
        raise found
    _log.error("check_broken", check=check.name, exc_info=found)
    finding = failure(f"the check itself broke ({type(found).__name__})", "Look for check_broken in the server's log")
    return Result(name=check.name, finding=finding, seconds=0.0)


async def _timed(check: Check, surroundings: Surroundings) -> Result:
    started_at = time.perf_counter()
    finding = await _finding(check, surroundings)
    return Result(name=check.name, finding=finding, seconds=time.perf_counter() - started_at)


async def _finding(check: Check, surroundings: Surroundings) -> Finding:
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await check.look(surroundings)
    except TimeoutError:
        return failure(f"no answer within {LONGEST_SECONDS:.0f} s", check.advice)
    # What is away is told by the check that is about it alone; the others have nothing to look at.
    except StoreUnavailable:
        return skipped("PostgreSQL does not answer")
    except VaultUnavailable:
        return skipped("Vault does not answer")
    except NoMetrics:
        return skipped("the metrics port does not answer")
    except TollhouseError as error:
        return failure(error.message(), check.advice)
