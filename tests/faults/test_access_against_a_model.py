"""Longer runs of access against its model: FAULTS_ACCESS_RUNS of them (300; full size 10,000), new ones each time."""

import os

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.test_access_against_a_model import run_against_the_model

RUNS = int(os.environ.get("FAULTS_ACCESS_RUNS", "300"))


def test_nobody_has_or_gives_more_than_the_model_allows_in_runs_nobody_has_seen(module_database: TestDatabase) -> None:
    """What is found is cut down to the shortest way there, and printed."""
    run_against_the_model(module_database, runs=RUNS, are_new=True)
