"""Mistakes on the way from cost to charge: rounding, sharing, months, what is closed, what is trued up."""

from tests.faults.mistakes import Mistake

_MONEY = "tests/unit/test_money.py"
_RATES = "tests/unit/charges/test_rates.py"
_SHARED = "tests/unit/charges/test_shared_costs.py"
_CLOSE = "tests/integration/chargeback/test_close.py"
_LOCKED = f"{_CLOSE}::test_a_closed_month_refuses_every_change_by_sql_too"
_STATEMENTS, _RECKONING = "chargeback/statements.py", "chargeback/rates.py"
_LOCKS = "database/migrations/versions/0027_statements.py"

MISTAKES = (
    Mistake(
        "what is left after a division is dropped",
        "money.py",
        "key=lambda key: -parts[key][1])[:left]",
        "key=lambda key: -parts[key][1])[:0]",
        f"{_MONEY}::test_parts_sum_to_the_whole",
    ),
    Mistake(
        "halves are always rounded up",
        "money.py",
        "(doubled == denominator and quotient % 2 == 1)",
        "doubled == denominator",
        f"{_MONEY}::test_a_half_goes_to_the_even_side",
    ),
    Mistake(
        "a mark-up is rounded twice",
        _RECKONING,
        "amount = divided(basis * rule.rate_millionths, WHOLE)",
        "amount = divided(divided(basis * rule.rate_millionths, WHOLE // 10), 10)",
        f"{_RATES}::test_a_rate_is_rounded_once_for_each_department",
    ),
    Mistake(
        "steps of volume begin anew in each department",
        _RECKONING,
        "total = marginal(basis, dict(rule.steps), whole=WHOLE)",
        "total = sum(marginal(cost, dict(rule.steps), whole=WHOLE) for cost in costs.values())",
        f"{_RATES}::test_steps_are_rounded_once_for_the_scope_and_divided_exactly",
    ),
    Mistake(
        "a rule holds for one day too many",
        _RECKONING,
        "day < self.ends_on)",
        "day <= self.ends_on)",
        _RATES,
    ),
    Mistake(
        "a shared cost that nobody can bear is dropped",
        "chargeback/shared_costs.py",
        ' or {"": cost.amount_nanos}',
        "",
        f"{_SHARED}::test_whatever_is_shared_is_borne_whole",
    ),
    Mistake(
        "an entry of a department that was moved is charged at both places",
        "chargeback/layout.py",
        "parts = spread(amount, paths)",
        "parts = {path: amount for path in paths}",
        "tests/unit/chargeback/test_composing.py",
    ),
    Mistake(
        "a month has the first moment of the next one too",
        "reporting/facts.py",
        "return [moment >= period.start, moment < period.end]",
        "return [moment >= period.start, moment <= period.end]",
        "tests/integration/reporting/test_rollups.py::test_any_report_is_the_same_with_any_days_rolled_up",
    ),
    Mistake(
        "a fiscal month ends with the calendar's",
        "chargeback/periods.py",
        "end=midnight(month_after(first).replace(day=day), clock.zone)",
        "end=midnight(month_after(first), clock.zone)",
        "tests/integration/chargeback/test_calendar_changes.py",
    ),
    Mistake(
        "a day of Google's that has begun before a month is the month's",
        "reconciliation/dates.py",
        "return day if midnight(day, PACIFIC) >= moment else day + timedelta(days=1)",
        "return day",
        "tests/unit/reconciliation/test_dates.py",
    ),
    Mistake(
        "what Google's bill has trued up is forgotten in statements",
        _STATEMENTS,
        "        *map(_true_up, await true_up_entries(session, tenant, month.period)),\n",
        "",
        "tests/integration/reconciliation/test_acceptance.py"
        "::test_what_is_accepted_stands_in_the_statement_with_its_reason",
    ),
    Mistake(
        "an adjustment of a closed month is charged nowhere",
        _STATEMENTS,
        "        *await adjustment_entries(session, tenant, month.name),\n",
        "",
        f"{_CLOSE}::test_an_adjustment_of_a_closed_month_stands_in_a_later_one_with_its_reason",
    ),
    Mistake(
        "a closed month takes adjustments",
        _LOCKS,
        '    "CREATE TRIGGER closed_month BEFORE INSERT ON adjustment'
        ' FOR EACH ROW EXECUTE FUNCTION refuse_in_closed_month()",\n',
        "",
        _LOCKED,
    ),
    Mistake(
        "a closed month can be opened again by SQL",
        _LOCKS,
        "CREATE TRIGGER closed_stays BEFORE INSERT OR UPDATE OR DELETE ON billing_period",
        "CREATE TRIGGER closed_stays BEFORE DELETE ON billing_period",
        _LOCKED,
    ),
    Mistake(
        "who has entered an adjustment closes its month",
        "chargeback/closing.py",
        "    if own is not None:\n        raise SecondPersonNeeded",
        "    if own is not None and not own:\n        raise SecondPersonNeeded",
        f"{_CLOSE}::test_who_has_entered_an_adjustment_does_not_close_its_month",
    ),
)
