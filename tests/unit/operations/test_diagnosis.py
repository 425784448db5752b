"""Checks are made at once, bounded in time, and what goes wrong in one keeps nothing from the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tollhouse_server.errors import StoreUnavailable, VaultDenied, VaultUnavailable
from tollhouse_server.operations import diagnosis
from tollhouse_server.operations.checks.registry import CHECKS
from tollhouse_server.operations.checks.scrape import NoMetrics
from tollhouse_server.operations.checks.terms import Check, Finding, Outcome, fine, warning
from tollhouse_server.operations.diagnosis import run_checks

NOWHERE: Any = None


def check(name: str, look: Callable[[Any], Awaitable[Finding]], *, needs: str = "") -> Check:
    """A check that looks at nothing."""
    return Check(name=name, look=look, advice="look there", needs=needs)


def raising(error: Exception) -> Callable[[Any], Awaitable[Finding]]:
    """A look that meets an error."""

    async def look(_: Any) -> Finding:
        raise error

    return look


async def well(_: Any) -> Finding:
    """A look at something that is well."""
    return fine("well")


async def hanging(_: Any) -> Finding:
    """A look that never ends."""
    await asyncio.Event().wait()
    return fine("never")


async def test_a_check_that_hangs_is_ended_and_the_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Vault that does not answer must not hang a diagnosis."""
    monkeypatch.setattr(diagnosis, "LONGEST_SECONDS", 0.05)

    hung, other = await run_checks([check("a.hangs", hanging), check("b.well", well)], NOWHERE)

    assert hung.finding.outcome is Outcome.FAILURE
    assert "no answer within" in hung.finding.seen
    assert hung.finding.advice == "look there"
    assert other.finding.outcome is Outcome.OK


async def test_checks_are_made_at_once() -> None:
    """Each waits for the other here."""
    met = asyncio.Barrier(2)

    async def meet(_: Any) -> Finding:
        await met.wait()
        return fine("met")

    results = await run_checks([check("one", meet), check("two", meet)], NOWHERE)

    assert [one.finding.seen for one in results] == ["met", "met"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (StoreUnavailable(), Outcome.SKIPPED),
        (VaultUnavailable(), Outcome.SKIPPED),
        (NoMetrics("gone"), Outcome.SKIPPED),
        (VaultDenied(path="x"), Outcome.FAILURE),
        (KeyError("a mistake"), Outcome.FAILURE),
    ],
)
async def test_what_a_check_meets_is_its_result(error: Exception, outcome: Outcome) -> None:
    """What is away has a check of its own; a mistake of ours is told as one, without what it says."""
    broken, other = await run_checks([check("broken", raising(error)), check("other", well)], NOWHERE)

    assert broken.finding.outcome is outcome
    assert "a mistake" not in broken.finding.seen
    assert other.finding.outcome is Outcome.OK


async def test_what_needs_a_part_that_is_away_is_not_looked_at() -> None:
    """One line fails, and the others name it; the order stays."""
    checks = [
        check("part.used", raising(AssertionError("looked at")), needs="part.there"),
        check("part.there", raising(VaultDenied(path="x"))),
        check("other.used", well, needs="other.there"),
        check("other.there", lambda _: _warned()),
    ]

    results = await run_checks(checks, NOWHERE)

    assert [one.name for one in results] == [one.name for one in checks]
    assert [one.finding.outcome.value for one in results] == ["SKIPPED", "FAILURE", "OK", "WARNING"]
    assert results[0].finding.seen == "see part.there"


async def _warned() -> Finding:
    return warning("slow", "wait")


def test_every_check_has_a_name_of_its_own_and_needs_one_that_there_is() -> None:
    """Names are what people type after --only."""
    names = [one.name for one in CHECKS]

    assert len(set(names)) == len(names)
    assert {one.needs for one in CHECKS} - {""} <= set(names)
