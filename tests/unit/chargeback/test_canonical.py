"""The text of a statement that is sealed, and back."""

from dataclasses import replace

import orjson
import pytest
from tollhouse_server.chargeback.canonical import canonical_json, statement_of

from tests.unit.chargeback.test_composing import TENANT, cell, entry, stated

MOST_ENTERED = 2**63 - 1
"""The most that a single adjustment or rule can come to, in nano-dollars."""


def test_a_statement_of_absurd_amounts_can_be_sealed_and_read_all_the_same() -> None:
    """Whoever enters billions thrice by mistake must see them to take them back, and close the month then."""
    statement = stated(TENANT, [cell("a", 1)], *[entry(MOST_ENTERED, "a")] * 3, entry(-1))

    text = canonical_json(statement)

    assert statement.totals.charge_nanos == 3 * MOST_ENTERED
    assert statement_of(text, generated_at=statement.generated_at, seal=None) == statement
    assert canonical_json(statement_of(text, generated_at=statement.generated_at, seal=None)) == text


def test_the_text_is_the_same_by_either_way_of_writing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest must not depend on how large the sums are."""
    odd = replace(entry(5, "a"), reason='\u4ef7 "\\" \t\n\x01\x7f\u2028 </script> \U0001d518')
    statement = stated(TENANT, [cell("a", 1)], odd)
    usual = canonical_json(statement)

    monkeypatch.setattr(orjson, "dumps", _refuse)

    assert canonical_json(statement) == usual


def _refuse(*_: object, **__: object) -> bytes:
    raise TypeError("Integer exceeds 64-bit range")
