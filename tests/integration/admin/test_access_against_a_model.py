"""Random grants, revocations, groups, roles and moves, by random people with random credentials, against a model."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.access_model import Actor, Company, steps
from tests.integration.admin.plane import Plane

RUNS = 8
_PHASES = (Phase.generate, Phase.shrink)


def run_against_the_model(database: TestDatabase, *, runs: int, are_new: bool) -> None:
    """Try so many sequences of acts, each in a tenant of its own."""
    with asyncio.Runner() as runner:
        plane = runner.run(Plane.start(database.app_dsn))

        @settings(
            max_examples=runs,
            deadline=None,
            derandomize=not are_new,
            database=None,
            phases=_PHASES,
            suppress_health_check=list(HealthCheck),
        )
        @given(steps)
        def sequence(tried: list[tuple[Actor, tuple[Any, ...]]]) -> None:
            runner.run(_play(plane, tried))

        try:
            sequence()
        finally:
            runner.run(plane.database.close())


async def _play(plane: Plane, tried: list[tuple[Actor, tuple[Any, ...]]]) -> None:
    company = Company(plane)
    await company.found()
    for actor, step in tried:
        await company.attempt(actor, step)
    company.check()


def test_nobody_has_or_gives_more_than_the_model_allows(module_database: TestDatabase) -> None:
    """What is allowed and what is refused equal the model's, and no act raises anybody above who did it."""
    run_against_the_model(module_database, runs=RUNS, are_new=False)
