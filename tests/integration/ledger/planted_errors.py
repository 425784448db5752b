"""Errors to plant in a ledger after a mixed run, as SQL, and what a verification must say of each."""

from typing import TypeAlias

from tollhouse_server.ledger.verification_store import Check

from tests.drivers.mixed_ledger import MixedRun

Findings: TypeAlias = set[tuple[Check, str, str]]
"""(check, table, field)"""

NANO: list[tuple[str, Findings]] = [
    (
        "UPDATE counter SET settled = settled + 1 WHERE limit_id = "
        "(SELECT limit_id FROM usage_limit WHERE name = 'budget')",
        {(Check.COUNTERS, "counter", "settled")},
    ),
    (
        "UPDATE counter SET held = held + 1 WHERE limit_id = "
        "(SELECT limit_id FROM usage_limit WHERE name = 'for-ever')",
        {(Check.HOLDS, "counter", "held")},
    ),
    (
        "UPDATE counter SET expected = expected + 1 WHERE limit_id = "
        "(SELECT limit_id FROM usage_limit WHERE name = 'budget')",
        {(Check.HOLDS, "counter", "expected")},
    ),
    (
        "UPDATE usage_record SET cost_nanos = cost_nanos + 1 WHERE attempt_id = $settled",
        {(Check.RECORDS, "usage_record", "cost_nanos"), (Check.COUNTERS, "counter", "settled")},
    ),
    (
        "UPDATE usage_record SET output_tokens = -1 WHERE attempt_id = $settled",
        {(Check.RECORDS, "usage_record", "output_tokens"), (Check.COUNTERS, "counter", "settled")},
    ),
    (
        "UPDATE usage_record SET cost_nanos = 1 WHERE attempt_id = $refused",
        {(Check.RECORDS, "usage_record", "cost_nanos"), (Check.COUNTERS, "counter", "settled")},
    ),
    (
        "UPDATE suspense SET cost_nanos = cost_nanos + 1 WHERE attempt_id = $open",
        {(Check.SUSPENSE, "suspense", "cost_nanos")},
    ),
    (
        "UPDATE suspense SET cost_nanos = cost_nanos + 1 WHERE attempt_id = $voided",
        {(Check.SUSPENSE, "suspense", "cost_nanos"), (Check.SUSPENSE, "usage_record", "outcome cost_nanos")},
    ),
    *(
        (
            f"UPDATE usage_record SET cost_nanos = cost_nanos + 1 "  # noqa: S608 - constants
            f"WHERE attempt_id = ${name} AND kind = 'ADJUSTMENT'",
            {(Check.SUSPENSE, "usage_record", "outcome cost_nanos"), (Check.COUNTERS, "counter", "settled")},
        )
        for name in ("accepted", "voided", "actual", "late")
    ),
    (
        "UPDATE usage_record SET output_tokens = output_tokens - 1 WHERE attempt_id = $actual AND kind = 'ADJUSTMENT'",
        {(Check.SUSPENSE, "usage_record", "outcome output_tokens"), (Check.COUNTERS, "counter", "settled")},
    ),
]
ROWS: list[tuple[str, Findings]] = [
    (
        "INSERT INTO usage_record SELECT (jsonb_populate_record(r, jsonb_build_object('settled_at', now()))).* "
        "FROM usage_record r WHERE attempt_id = $refused",
        {(Check.ATTEMPTS, "usage_record", "row")},
    ),
    (
        "DELETE FROM usage_record WHERE attempt_id = $open",
        {(Check.SUSPENSE, "usage_record", "row"), (Check.COUNTERS, "counter", "settled")},
    ),
    ("DELETE FROM suspense WHERE attempt_id = $open", {(Check.SUSPENSE, "suspense", "row")}),
    (
        "DELETE FROM usage_record WHERE attempt_id = $voided AND kind = 'SUSPENSE'",
        {
            (Check.ATTEMPTS, "usage_record", "row"),
            (Check.SUSPENSE, "usage_record", "row"),
            (Check.COUNTERS, "counter", "settled"),
        },
    ),
    (
        "DELETE FROM usage_record WHERE attempt_id = $accepted AND kind = 'ADJUSTMENT'",
        {(Check.SUSPENSE, "usage_record", "adjustments")},
    ),
    (
        "UPDATE usage_record SET kind = 'ADJUSTMENT' WHERE attempt_id = $settled",
        {(Check.ATTEMPTS, "usage_record", "row")},
    ),
    (
        "DELETE FROM attempt WHERE attempt_id = $in_flight",
        {(Check.HOLDS, "counter", "held")},
    ),
    (
        "UPDATE usage_record SET attempt_id = $in_flight WHERE attempt_id = $refused",
        {(Check.ATTEMPTS, "attempt", "row")},
    ),
    (
        "UPDATE usage_record SET settled_at = '1999-01-01' WHERE attempt_id = $refused",
        {(Check.PARTITIONS, "usage_record_default", "row")},
    ),
    (
        "DELETE FROM counter WHERE limit_id = (SELECT limit_id FROM usage_limit WHERE name = 'for-ever') AND held = 0",
        set(),
    ),
]


def filled(sql: str, run: MixedRun) -> str:
    """Put attempt ids in place of their names."""
    ids = {
        "settled": run.settled[3],
        "refused": run.refused[0],
        "open": run.open[0],
        "accepted": run.accepted,
        "voided": run.voided,
        "actual": run.actual,
        "late": run.late,
        "in_flight": run.in_flight[0].terms.attempt_id,
    }
    for name, attempt in ids.items():
        sql = sql.replace(f"${name}", f"'{attempt}'")
    return sql
