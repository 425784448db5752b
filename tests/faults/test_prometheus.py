"""Troubles one after the other, under a real Prometheus: each fills the queries and fires the alerts that it is for.

Some ten minutes: readings come every 15 s, processes take theirs to start again, and the ledger is verified first five
minutes after a start.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.drivers.forks import Forks
from tests.drivers.places import servers_place
from tests.drivers.prometheus import program
from tests.drivers.questions import (
    EMPTY_WHEN_HEALTHY,
    HEALTHY,
    Answers,
    asked_while_healthy,
    queries_of_boards,
    queries_of_rules,
)
from tests.drivers.troubles import TROUBLES
from tests.drivers.watched import watched

FIRED = {
    "TollhouseBreakerOpen",
    "TollhouseUnusualKeyUse",
    "TollhouseCertificateExpiresSoon",
    "TollhouseCallsFailFast",
    "TollhouseVaultUnreachable",
    "TollhouseCertificateRefused",
    "TollhouseReconciliationVariance",
    "TollhouseDatabaseUnreachable",
    "TollhouseContentLost",
    "TollhouseAuditFails",
    "TollhouseConservationFailed",
}
"""Alerts that have to fire in some trouble."""


@pytest.fixture(scope="module")
def answers(server_forks: Forks, tollhouse_forks: Forks) -> Iterator[Answers]:
    """What a company under a mixed load answers, healthy at first and then in every trouble."""
    program("prometheus")
    with servers_place("watched") as directory, watched(directory, server_forks, tollhouse_forks) as company:
        found = asked_while_healthy(company)
        for trouble in TROUBLES:
            trouble(company, partial(found.ask, trouble.__name__))
        yield found


@pytest.mark.parametrize("board", sorted(queries_of_boards()))
def test_every_query_of_a_board_has_an_answer(answers: Answers, board: str) -> None:
    """While all is well, or in the trouble that it is there for."""
    assert {query for query in queries_of_boards()[board] if not answers.explains(query)} == set()


@pytest.mark.parametrize("rules", sorted(queries_of_rules()))
def test_every_series_that_rules_ask_for_exists(answers: Answers, rules: str) -> None:
    """With its filters: a label that has another value is a rule that never fires."""
    assert {query for query in queries_of_rules()[rules] if not answers.explains(query)} == set()


def test_what_is_said_to_be_empty_while_all_is_well_was_empty(answers: Answers) -> None:
    """A list of exceptions that outlive their reason hides the next mistake."""
    empty = answers.open | {query for query, condition in answers.first.items() if condition != HEALTHY}

    assert [part for part in EMPTY_WHEN_HEALTHY if not any(part in query for query in empty)] == []


def test_alerts_fire_in_the_troubles_that_they_are_for(answers: Answers) -> None:
    """On real series of real servers; breaker, Vault and database also ended before their trouble was called over."""
    fired = {alert for alerts in answers.fired.values() for alert in alerts}

    assert FIRED - fired == set()
