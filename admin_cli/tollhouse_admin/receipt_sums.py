"""Whether the sums in a receipt are right: each line rounded once, the lines of a record, the records of a call."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

VERSION: Final = "tollhouse.receipt/1"
"""The version of receipts that can be read here."""

_UNITS: Final = 1_000_000


def sum_error(document: Mapping[str, Any]) -> str:
    """Return the first sum in a receipt that is wrong, in words; empty where all are right.

    Raises:
        TypeError, KeyError: the receipt is not of the form of its version.
    """
    records = [document["booking"], *document["corrections"]]
    total = sum(_whole(record["cost_nanos"]) for record in records)
    if total != _whole(document["cost_nanos"]):
        return f"booking and corrections come to {total} nano-dollars, the receipt says {document['cost_nanos']}"
    return _lines_error(records)


def _lines_error(records: Sequence[Mapping[str, Any]]) -> str:
    """Lines say what the call came to as of their record. A booking in suspense and a ruling of a person have none."""
    so_far = 0
    for record in records:
        so_far += record["cost_nanos"]
        for line in record["lines"]:
            due = rounded_cost_nanos(_whole(line["quantity"]), _whole(line["nanos_per_million_units"]))
            if due != _whole(line["cost_nanos"]):
                return f"line {line['sku']} comes to {due} nano-dollars, the receipt says {line['cost_nanos']}"
        lines = sum(line["cost_nanos"] for line in record["lines"])
        if lines != so_far and (record["lines"] or record["kind"] == "SETTLED"):
            return f"the lines come to {lines} nano-dollars, the call to {so_far}"
    return ""


def rounded_cost_nanos(quantity: int, nanos_per_million_units: int) -> int:
    """Return quantity x rate in nano-dollars, rounded once, half to even."""
    whole, rest = divmod(quantity * nanos_per_million_units, _UNITS)
    return whole + (rest * 2 > _UNITS or (rest * 2 == _UNITS and whole % 2 == 1))


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value
