"""Which top-up pays for what, against a model that moves every nano-dollar by itself."""

from datetime import UTC, datetime, timedelta
from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.chargeback.funds import Fund, Funds, after, attribute, expire, with_top_up

_START: Final = datetime(2026, 11, 1, tzinfo=UTC)
_EMPTY: Final = Funds(funds=(), attributed_nanos=0)


def day(number: int) -> datetime:
    """The beginning of a day of the test's calendar."""
    return _START + timedelta(days=number)


def fund(name: str, amount: int, expires: int | None = None, made: int = 0) -> Fund:
    """A top-up."""
    expires_at = None if expires is None else day(expires)
    return Fund(top_up_id=name, amount_nanos=amount, created_at=day(made), expires_at=expires_at)


def left(funds: Funds) -> dict[str, int]:
    """What is left of each top-up."""
    return {one.top_up_id: one.left_nanos for one in funds.funds}


def test_what_expires_first_is_spent_first() -> None:
    """What never expires comes last, and of two alike the older."""
    funds = Funds(funds=(fund("ever", 10), fund("late", 10, 9), fund("soon", 10, 5)), attributed_nanos=0)

    assert left(attribute(funds, 15)) == {"ever": 10, "late": 5, "soon": 0}


def test_a_later_top_up_does_not_pay_for_what_was_spent_before_it() -> None:
    """Though it expires first: nothing of it was spent, so all of it is left."""
    funds = attribute(with_top_up(_EMPTY, fund("ever", 10)), 8)

    funds = attribute(with_top_up(funds, fund("soon", 5, 2, made=1)), 8)

    assert left(funds) == {"ever": 2, "soon": 5}
    assert expire(funds, day(2), 0).amount_nanos == 10


def test_what_calls_in_flight_hold_is_theirs_until_they_end() -> None:
    """Then what they leave of it expires as well."""
    funds = Funds(funds=(fund("soon", 10, 1),), attributed_nanos=0)

    at_expiry = after(funds, settled_nanos=2, held_nanos=3, now=day(1))
    ended = after(at_expiry, settled_nanos=3, held_nanos=0, now=day(1))

    assert (at_expiry.amount_nanos, left(at_expiry)) == (5, {"soon": 3})
    assert (ended.amount_nanos, left(ended), ended.funds[0].is_over) == (3, {"soon": 0}, True)


def test_more_than_was_paid_is_taken_from_the_next_top_up() -> None:
    """A wallet that is below zero does not forget it."""
    funds = attribute(with_top_up(_EMPTY, fund("first", 10)), 12)

    funds = attribute(with_top_up(funds, fund("next", 5, made=1)), 12)

    assert left(funds) == {"first": 0, "next": 3}


def test_what_was_admitted_while_a_top_up_expired_is_paid_by_it() -> None:
    """A call that the ledger let through in that moment costs nobody else's money."""
    funds = expire(Funds(funds=(fund("soon", 10, 1),), attributed_nanos=0), day(1), 0)

    funds = attribute(funds, 4)

    (over,) = funds.funds
    assert (over.spent_nanos, over.expired_nanos, funds.amount_nanos) == (4, 6, 4)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("top-up"), st.integers(1, 50), st.one_of(st.none(), st.integers(0, 20))),
        st.tuples(st.just("spend"), st.integers(1, 60), st.none()),
        st.tuples(st.just("refund"), st.integers(1, 20), st.none()),
        st.tuples(st.just("days"), st.integers(1, 6), st.none()),
    ),
    max_size=30,
)


@given(_STEPS)
def test_no_money_is_made_or_lost(steps: list[tuple[str, int, int | None]]) -> None:
    """What was paid is spent, expired or left; and the limit's room is what is left of the top-ups."""
    funds, now, paid, settled = _EMPTY, 0, 0, 0
    for number, (what, value, expires) in enumerate(steps):
        room = funds.amount_nanos - settled
        if what == "top-up":
            due = None if expires is None else now + expires + 1
            funds, paid = with_top_up(funds, fund(f"t{number:02}", value, due, made=now)), paid + value
        elif what == "spend":
            settled += max(0, min(value, room))
        elif what == "refund":
            settled -= min(value, settled)
        else:
            now += value

        funds = after(funds, settled_nanos=settled, held_nanos=0, now=day(now))

        assert all(one.left_nanos >= 0 <= one.spent_nanos for one in funds.funds)
        spent = sum(one.spent_nanos for one in funds.funds)
        expired = sum(one.expired_nanos for one in funds.funds)
        assert paid == spent + expired + sum(left(funds).values())
        # A refund of what an expired top-up had paid is nobody's, and stays in the wallet.
        refunded = funds.attributed_nanos - settled
        assert (spent, refunded >= 0) == (funds.attributed_nanos, True)
        assert funds.amount_nanos - settled == sum(left(funds).values()) + refunded
