"""Mistakes in the arithmetic: what is held, what is refused, what is settled, and when windows turn."""

from tests.faults.mistakes import MODEL, RECOVERY, RESERVE, VERDICTS, WINDOWS, Mistake

_LIMITS = "tests/unit/ledger/test_windows.py"
_FILE = "ledger/verdicts.py"

MISTAKES = (
    Mistake(
        "check and increment are not one: what calls in flight hold is not counted",
        _FILE,
        "if counter.held + counter.settled + amount > one.amount:",
        "if counter.settled + amount > one.amount:",
        f"{RESERVE}::test_a_hard_budget_admits_exactly_what_fits_under_concurrency",
    ),
    Mistake(
        "the last call that fits is refused",
        _FILE,
        "if counter.held + counter.settled + amount > one.amount:",
        "if counter.held + counter.settled + amount >= one.amount:",
        f"{RESERVE}::test_a_hard_budget_admits_exactly_what_fits_under_concurrency",
    ),
    Mistake(
        "the ceiling itself is not counted: one call too many",
        _FILE,
        "if counter.held + counter.settled + amount > one.amount:",
        "if counter.held + counter.settled >= one.amount:",
        VERDICTS,
    ),
    Mistake(
        "holds leak and refuse healthy callers",
        _FILE,
        "        counter.held -= amount\n",
        "",
        f"{RESERVE}::test_a_settled_call_moves_its_hold_to_what_it_really_cost",
    ),
    Mistake(
        "what is expected of calls in flight leaks and pins an elastic budget",
        _FILE,
        "        counter.expected -= expected\n",
        "",
        MODEL,
    ),
    Mistake(
        "a settlement above the reserve is never collected",
        _FILE,
        "    correct(holds, actual, counters)\n",
        "    for key, metric, held, _ in holds:\n        counters[key].settled += min(held, actual.of(metric))\n",
        f"{RESERVE}::test_a_settlement_above_the_hold_is_booked_in_full",
    ),
    Mistake(
        "a call is settled at what was held for it",
        _FILE,
        "    correct(holds, actual, counters)\n",
        "    for key, _, held, _ in holds:\n        counters[key].settled += held\n",
        f"{RESERVE}::test_a_settled_call_moves_its_hold_to_what_it_really_cost",
    ),
    Mistake(
        "a later difference is booked on the record and not on the counter",
        _FILE,
        "counters[key].settled += difference.of(metric)",
        "counters[key].settled += max(0, difference.of(metric))",
        f"{RECOVERY}::test_a_worker_that_was_only_slow_settles_what_was_swept_from_it",
    ),
    Mistake(
        "a limit on tokens charges 1 per request",
        "ledger/terms.py",
        "return 0 if metric.position < 0 else self[metric.position]",
        "return 0 if metric.position < 0 else min(1, self[metric.position])",
        MODEL,
    ),
    Mistake(
        "a call goes on counting as concurrent when it has ended",
        "ledger/terms.py",
        "return 0 if metric.position < 0 else self[metric.position]",
        "return 1 if metric.position < 0 else self[metric.position]",
        MODEL,
    ),
    Mistake(
        "an elastic limit has no bound",
        _FILE,
        "return state.held + state.settled + amount <= one.bound",
        "return one.limit.mode is Mode.ELASTIC or state.held + state.settled + amount <= one.bound",
        VERDICTS,
    ),
    Mistake(
        "full-size holds pin an elastic budget while nothing is spent",
        _FILE,
        "if one.is_elastic and state.expected + state.settled +",
        "if one.is_elastic and state.held + state.settled +",
        VERDICTS,
    ),
    Mistake(
        "an elastic limit lets its overshoot be spent on purpose",
        _FILE,
        "_probable(one, amount, shares) > one.amount:",
        "_probable(one, amount, shares) > one.bound:",
        VERDICTS,
    ),
    Mistake(
        "a strict limit has an overshoot",
        _FILE,
        "bound=amount + limit.overshoot if limit.mode is Mode.ELASTIC else amount,",
        "bound=amount + limit.overshoot,",
        VERDICTS,
    ),
    Mistake(
        "a soft limit refuses",
        _FILE,
        "    if one.limit.mode is Mode.SOFT:\n        return True\n",
        "",
        VERDICTS,
    ),
    Mistake(
        "only the narrowest limit counts",
        _FILE,
        """    for one in limits:
        amount = ceiling[one.position] if one.position >= 0 else 1
        if""",
        """    for one in limits[:1]:
        amount = ceiling[one.position] if one.position >= 0 else 1
        if""",
        VERDICTS,
    ),
    Mistake(
        "a call is clamped to the last limit's room and not to the smallest",
        _FILE,
        "if limit.metric not in rooms or room < rooms[limit.metric].left:",
        "if room >= 0:",
        VERDICTS,
    ),
    Mistake(
        "a clamped call is not held against the other limits",
        _FILE,
        "_first_without_room(shrunk.ceiling, limits, counters, shares=shares) is None:",
        "_first_without_room(shrunk.ceiling, (), counters, shares=shares) is None:",
        VERDICTS,
    ),
    Mistake(
        "clamping spends what others hold",
        _FILE,
        "room = max(0, one.bound - state.held - state.settled)",
        "room = max(0, one.bound - state.settled)",
        VERDICTS,
    ),
    Mistake(
        "a top-up is not held",
        _FILE,
        "        counter.held += amount\n        counter.expected += expected\n",
        "        counter.expected += expected\n",
        MODEL,
    ),
    Mistake(
        "a top-up counts as another call",
        _FILE,
        "counting = [one for one in limits if more.of(one.limit.metric)]",
        "counting = list(limits)",
        VERDICTS,
    ),
    Mistake(
        "an increase counts before it begins",
        "ledger/terms.py",
        "if (i.starts_at is None or i.starts_at <= now) and now < i.expires_at",
        "if now < i.expires_at",
        VERDICTS,
    ),
    Mistake(
        "an increase never ends",
        "ledger/terms.py",
        "if (i.starts_at is None or i.starts_at <= now) and now < i.expires_at",
        "if i.starts_at is None or i.starts_at <= now",
        VERDICTS,
    ),
    Mistake(
        "a rolling window begins anew with each minute",
        "ledger/windows.py",
        "for offset in range(-_ROLLING_MINUTES, 2))",
        "for offset in range(2))",
        WINDOWS,
    ),
    Mistake(
        "a rolling window never forgets its oldest minute",
        "ledger/windows.py",
        "for offset in range(-_ROLLING_MINUTES, 2))",
        "for offset in range(-_ROLLING_MINUTES - 1, 2))",
        WINDOWS,
    ),
    Mistake(
        "days are cut in UTC and not in the tenant's time zone",
        "ledger/windows.py",
        "day = at.astimezone(calendar.zone).date()",
        "day = at.astimezone(UTC).date()",
        _LIMITS,
    ),
    Mistake(
        "every day has 24 hours",
        "ledger/windows.py",
        "return midnight(day + timedelta(days=1), calendar.zone)",
        "return start + timedelta(days=1)",
        _LIMITS,
    ),
    Mistake(
        "a fiscal month begins with the calendar's",
        "ledger/windows.py",
        "return in_month.replace(day=start_day)",
        "return in_month.replace(day=1)",
        _LIMITS,
    ),
)
