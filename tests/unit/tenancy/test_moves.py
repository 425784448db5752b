"""When a department may move, and whether it can."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from tollhouse_server.errors import DepartmentRing, InvalidRequest, ResourceNotFound
from tollhouse_server.tenancy.moves import Tree, effective_moment, failure_of

NOW = datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("asked", [None, NOW, NOW - timedelta(minutes=1)])
def test_a_move_without_a_time_or_at_one_just_past_is_made_at_once(asked: datetime | None) -> None:
    """The clocks of a caller and the database may differ by a minute."""
    assert effective_moment(asked, NOW) is None


@pytest.mark.parametrize("ahead", [timedelta(microseconds=1), timedelta(days=400)])
def test_a_time_to_come_is_kept_exactly(ahead: timedelta) -> None:
    """From the next microsecond to four hundred days."""
    assert effective_moment(NOW + ahead, NOW) == NOW + ahead


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (NOW - timedelta(minutes=1) - SECOND, "must not be past: it is 2026-12-31T23:59:30"),
        (NOW - timedelta(days=3000), "must not be past"),
        (NOW + timedelta(days=400) + SECOND, "at most 400 days ahead"),
    ],
)
def test_a_time_out_of_bounds_is_refused_with_the_bound(asked: datetime, said: str) -> None:
    """What is booked stays booked, and a year too much is a typing mistake."""
    with pytest.raises(InvalidRequest, match=said):
        effective_moment(asked, NOW)


def tree() -> Tree:
    """A company: a > b > c, and d."""
    return Tree("acme", {"a": None, "b": "a", "c": "b", "d": None})


def test_a_move_takes_everything_below_along() -> None:
    """Only the moved department has another parent."""
    company = tree()

    company.move("b", "d")

    assert [company.path(one) for one in "abcd"] == [("a",), ("d", "b"), ("d", "b", "c"), ("d",)]


@pytest.mark.parametrize(("department", "parent"), [("a", "a"), ("a", "c"), ("b", "c")])
def test_a_move_below_itself_is_refused(department: str, parent: str) -> None:
    """The tree would become a ring; nothing has changed after the refusal."""
    company = tree()

    with pytest.raises(DepartmentRing) as refused:
        company.move(department, parent)

    assert company.path("c") == ("a", "b", "c")
    assert f"departments/{parent} was tenants/acme/departments/{department} itself or below" in failure_of(
        refused.value
    )


@pytest.mark.parametrize(("department", "parent"), [("gone", "a"), ("a", "gone")])
def test_a_move_of_what_is_gone_is_refused_by_name(department: str, parent: str) -> None:
    """The reason names what has been deleted."""
    with pytest.raises(ResourceNotFound) as refused:
        tree().move(department, parent)

    assert failure_of(refused.value) == "tenants/acme/departments/gone had been deleted or merged by then."


def test_moves_that_will_fail_are_left_out_of_what_is_foreseen() -> None:
    """One that can be made counts, one that cannot changes nothing."""
    company = tree()

    company.expect([("MOVE", "a", "c"), ("MOVE", "c", None), ("MERGE", "gone", "a"), ("MOVE", "a", "c")])

    assert [company.path(one) for one in "abcd"] == [("c", "a"), ("c", "a", "b"), ("c",), ("d",)]


def test_a_tree_stays_a_tree_under_any_moves() -> None:
    """A thousand random moves: every path ends at the top, and no department is on its own path twice."""
    chance = random.Random(20261121)
    ids = [f"d{number}" for number in range(12)]
    company = Tree("acme", dict.fromkeys(ids))

    for _ in range(1000):
        company.expect([("MOVE", chance.choice(ids), chance.choice([*ids, None]))])

        paths = [company.path(one) for one in ids]
        assert all(len(path) == len(set(path)) for path in paths)
        assert all(company.path(path[0]) == (path[0],) for path in paths)


def test_a_merge_puts_what_is_below_into_the_other_and_ends_the_department() -> None:
    """What comes after it finds the department gone."""
    company = tree()

    company.merge("b", "d")

    assert [company.path(one) for one in "acd"] == [("a",), ("d", "c"), ("d",)]
    with pytest.raises(ResourceNotFound):
        company.move("c", "b")


@pytest.mark.parametrize(("department", "into"), [("a", "a"), ("a", "c")])
def test_a_merge_into_itself_or_what_is_below_is_refused(department: str, into: str) -> None:
    """Its contents would be below themselves; the tree is as it was."""
    company = tree()

    with pytest.raises(DepartmentRing):
        company.merge(department, into)

    assert company.path("c") == ("a", "b", "c")
