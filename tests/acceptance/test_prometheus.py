"""A real Prometheus scrapes real servers under a mixed load: what boards and rules ask has an answer there.

What is empty as long as all is well is filled by its trouble in `make faults ARGS="tests"` (tests/faults).
"""

from collections.abc import Iterator

import pytest

from tests.drivers.forks import Forks
from tests.drivers.places import servers_place
from tests.drivers.prometheus import program
from tests.drivers.questions import (
    EMPTY_WHEN_HEALTHY,
    Answers,
    asked_while_healthy,
    queries_of_boards,
    queries_of_rules,
)
from tests.drivers.watched import watched


@pytest.fixture(scope="module")
def answers(server_forks: Forks, tollhouse_forks: Forks) -> Iterator[Answers]:
    """What a company under a mixed load answers while all is well."""
    program("prometheus")
    with servers_place("watched") as directory, watched(directory, server_forks, tollhouse_forks) as company:
        yield asked_while_healthy(company)


def _unanswered(answers: Answers, queries: set[str]) -> set[str]:
    """Return the queries that have no answer, and are not said to have none while all is well."""
    silent = EMPTY_WHEN_HEALTHY
    return {query for query in queries & answers.open if not any(part in query for part in silent)}


@pytest.mark.parametrize("board", sorted(queries_of_boards()))
def test_every_query_of_a_board_has_an_answer(answers: Answers, board: str) -> None:
    """A panel that shows nothing is asked by nobody twice."""
    assert _unanswered(answers, queries_of_boards()[board]) == set()


@pytest.mark.parametrize("rules", sorted(queries_of_rules()))
def test_every_series_that_rules_ask_for_exists(answers: Answers, rules: str) -> None:
    """With its filters: a label that has another value is a rule that never fires."""
    assert _unanswered(answers, queries_of_rules()[rules]) == set()


def test_every_rule_is_evaluated_without_an_error(answers: Answers) -> None:
    """promtool sees that they parse, and only a real Prometheus what they meet."""
    failed = [
        (rule["name"], rule.get("lastError")) for rule in answers.watched.prometheus.rules() if rule["health"] != "ok"
    ]

    assert failed == []
