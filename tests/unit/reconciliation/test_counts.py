"""Google's counts of requests against the ledger's attempts: each planted difference is named, and nothing else."""

from datetime import date, timedelta

import pytest
from tollhouse_server.reconciliation.counts import CountKey, CountReason, Counts, added_up, compare_counts

KEY = CountKey(date(2026, 11, 2), "alpha", "flash")
NEXT = KEY._replace(day=KEY.day + timedelta(days=1))
OTHER = KEY._replace(model="pro")
OWN = {
    KEY: Counts(requests=10, tokens=100, refused=2, unknown=1),
    NEXT: Counts(requests=20, tokens=200),
    OTHER: Counts(requests=5, tokens=50),
}
SAME = {key: Counts(requests=one.requests, tokens=one.tokens) for key, one in OWN.items()}


def found(counted: dict[CountKey, Counts]) -> dict[CountKey, CountReason]:
    """Return what differs, and why."""
    return {one.key: one.reason for one in compare_counts(counted, OWN)}


def test_the_same_counts_have_no_difference() -> None:
    """Also where Google's file has no tokens."""
    assert found(SAME) == {}
    assert found({key: Counts(requests=one.requests) for key, one in SAME.items()}) == {}


PLANTED: dict[str, tuple[dict[CountKey, Counts], dict[CountKey, CountReason]]] = {
    "calls past Tollhouse": ({OTHER: Counts(requests=6, tokens=60)}, {OTHER: CountReason.MORE_IN_METRICS}),
    "a project that nobody knows": (
        {KEY._replace(project="gamma"): Counts(requests=1)},
        {KEY._replace(project="gamma"): CountReason.PROJECT_NOT_IN_LEDGER},
    ),
    "late counts": (
        {KEY: Counts(requests=7), NEXT: Counts(requests=23)},
        {KEY: CountReason.OTHER_DAY, NEXT: CountReason.OTHER_DAY},
    ),
    "refusals are not counted": ({KEY: Counts(requests=8)}, {KEY: CountReason.NOT_COUNTED_REFUSALS}),
    "a call that never arrived": ({KEY: Counts(requests=7)}, {KEY: CountReason.UNKNOWN_OUTCOME}),
    "attempts too many": ({NEXT: Counts(requests=19)}, {NEXT: CountReason.FEWER_IN_METRICS}),
    "nothing counted": ({OTHER: Counts()}, {OTHER: CountReason.NOT_IN_METRICS}),
    "tokens": ({NEXT: Counts(requests=20, tokens=201)}, {NEXT: CountReason.TOKENS_ONLY}),
}


@pytest.mark.parametrize("case", PLANTED)
def test_each_difference_is_named(case: str) -> None:
    """One file, one thing wrong in it."""
    changes, reasons = PLANTED[case]

    assert found(SAME | changes) == reasons


def test_rows_of_one_key_are_added_up() -> None:
    """A file may have a row for each method."""
    rows = [(KEY, Counts(requests=1, tokens=5)), (KEY, Counts(requests=2)), (OTHER, Counts(requests=3))]

    assert added_up(rows) == {KEY: Counts(requests=3, tokens=5), OTHER: Counts(requests=3)}
