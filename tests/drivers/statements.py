"""Statements held against what a plain scan of the records has found."""

from tollhouse_server.chargeback.statement import Statement
from tollhouse_server.names import DepartmentName

from tests.drivers.recorded_month import Scan

_LAST_ID = {"department", "project"}


def hold_against(found: Scan, stated: Statement) -> None:
    """Make sure that a statement says what the scan has found, to the nano-dollar."""
    scope = stated.scope.department if isinstance(stated.scope, DepartmentName) else ""
    ((cost, calls),) = found.of(scope, "total").values() or [(0, 0)]
    assert (stated.totals.cost_nanos, stated.totals.calls) == (cost, calls)
    assert stated.totals.charge_nanos == cost + sum(entry.amount_nanos for entry in stated.entries)
    for dimension, parts in stated.breakdowns.items():
        short = dimension.value in _LAST_ID
        assert {
            part.key.rpartition("/")[2] if short else part.key: (part.amounts.cost_nanos, part.amounts.calls)
            for part in parts
            # What is charged to nothing in particular has not cost anything.
            if part.key or part.amounts.cost_nanos
        } == found.of(scope, dimension.value)
        assert sum(part.amounts.charge_nanos for part in parts) == stated.totals.charge_nanos
    assert {part.key: (part.amounts.cost_nanos, part.amounts.calls) for part in stated.labels} == found.of(
        scope, "label"
    )
    lines = {key[1:]: int(nanos) for key, nanos in found.lines.items() if key[0] == scope and nanos}
    assert {
        (
            one.department.rpartition("/")[2],
            one.project.rpartition("/")[2],
            one.tier,
            one.model,
            one.sku,
        ): one.cost_nanos
        for one in stated.lines
        if one.cost_nanos
    } == lines
    assert sum(line.cost_nanos for line in stated.lines) == stated.totals.cost_nanos
