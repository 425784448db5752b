"""Longer runs of the ledger against its model: FAULTS_MODEL_RUNS of them (300), new ones each time. Some minutes."""

import os

from tests.drivers.postgres import TestDatabase
from tests.integration.ledger.test_ledger_against_a_model import run_against_the_model

RUNS = int(os.environ.get("FAULTS_MODEL_RUNS", "300"))


def test_the_ledger_does_what_the_model_does_in_runs_nobody_has_seen(module_database: TestDatabase) -> None:
    """What is found is cut down to the shortest way there, and printed."""
    run_against_the_model(module_database, runs=RUNS, are_new=True)
