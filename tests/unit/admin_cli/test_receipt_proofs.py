"""Receipts under `verify`: what is genuine passes, whatever was changed does not."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_admin.receipt_proofs import KeySet, Verdict, Verifier
from tollhouse_admin.receipt_sums import rounded_cost_nanos
from tollhouse_server.money import charge_nanos
from tollhouse_server.reporting.records import UsageRecord

from tests.drivers.receipts import (
    KEY,
    KeyInMemory,
    as_line,
    correction,
    document_of,
    line,
    receipts_of,
    record,
    suspended,
)


@dataclass(frozen=True, slots=True)
class Signed:
    """Receipts of one tree, as lines, and the key that signed them."""

    lines: list[str]
    key: KeyInMemory

    def verifier(self, tenant: str = "tenants/acme") -> Verifier:
        """Return a verifier under the key's public versions."""
        return Verifier(key_set(self.key, tenant))


def key_set(key: KeyInMemory, tenant: str = "tenants/acme") -> KeySet:
    versions = enumerate(key.versions, start=1)
    return KeySet(tenant=tenant, keys={(KEY, number): version.public_key() for number, version in versions})


def signed(*calls: Sequence[UsageRecord], key: KeyInMemory | None = None) -> Signed:
    signer = key or KeyInMemory()
    receipts = asyncio.run(receipts_of([document_of(*records) for records in calls], signer))
    return Signed([as_line(receipt) for receipt in receipts], signer)


def signed_text(document: str) -> Signed:
    """Sign a document that the server would not write."""
    key = KeyInMemory()
    return Signed([as_line(receipt) for receipt in asyncio.run(receipts_of([document], key))], key)


FIVE = signed(*([record(number)] for number in range(1, 6)))
JUDGE = FIVE.verifier()


def test_a_receipt_is_valid_wherever_it_stands_in_its_tree() -> None:
    """Each with its attempt and its cost."""
    findings = [JUDGE.verify(receipt) for receipt in FIVE.lines]

    assert [finding.verdict for finding in findings] == [Verdict.VALID] * 5
    assert [int(finding.attempt_id[-1]) for finding in findings] == [1, 2, 3, 4, 5]
    assert {finding.cost_nanos for finding in findings} == {record().cost_nanos}


@given(st.data())
def test_no_byte_of_a_receipt_can_be_changed(data: st.DataObject) -> None:
    """In the record, in its proof, in the JSON around them: any byte, to any other."""
    genuine = FIVE.lines[data.draw(st.integers(0, 4))].encode()
    place = data.draw(st.integers(0, len(genuine) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != genuine[place]))

    finding = JUDGE.verify(genuine[:place] + bytes([other]) + genuine[place + 1 :])

    assert finding.verdict in {Verdict.FORGED, Verdict.UNKNOWN_KEY}


def leaves(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a document."""
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    found: list[tuple[Any, ...]] = []
    for name, value in entries:
        nested = isinstance(value, dict | list) and value
        found += leaves(value, (*path, name)) if nested else [(*path, name)]
    return found


RECORDED = json.loads(json.loads(FIVE.lines[0])["document"])


@pytest.mark.parametrize("path", leaves(RECORDED), ids=lambda path: ".".join(map(str, path)))
def test_no_field_of_a_record_can_be_changed(path: tuple[Any, ...]) -> None:
    """By whoever writes the JSON anew, too."""
    receipt = json.loads(FIVE.lines[0])
    document = json.loads(receipt["document"])
    target = document
    for name in path[:-1]:
        target = target[name]
    value = target[path[-1]]
    target[path[-1]] = value + 1 if isinstance(value, int) else f"{value}x"
    receipt["document"] = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    assert JUDGE.verify(json.dumps(receipt)).verdict is Verdict.FORGED


PROOF_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another place": lambda receipt: receipt.update(leafIndex=1),
    "a place outside": lambda receipt: receipt.update(leafIndex=5),
    "a larger tree": lambda receipt: receipt.update(treeSize=6),
    "a smaller tree": lambda receipt: receipt.update(treeSize=4),
    "no path": lambda receipt: receipt.update(path=[]),
    "a longer path": lambda receipt: receipt["path"].append(receipt["path"][0]),
    "another's signature": lambda receipt: receipt["signature"].update(value="A" * 86 + "=="),
    "no signature": lambda receipt: receipt.pop("signature"),
    "something more": lambda receipt: receipt.update(note="paid"),
    "a fraction": lambda receipt: receipt.update(treeSize=5.0),
    "true for one": lambda receipt: receipt.update(leafIndex=True),
    "hash of another length": lambda receipt: receipt.update(path=["AAAA", *receipt["path"][1:]]),
}


@pytest.mark.parametrize("case", PROOF_CHANGES)
def test_no_part_of_a_proof_can_be_changed(case: str) -> None:
    """Whatever is still JSON of the right kind is looked at."""
    receipt = json.loads(FIVE.lines[0])

    PROOF_CHANGES[case](receipt)

    assert JUDGE.verify(json.dumps(receipt)).verdict is Verdict.FORGED


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "5", '"text"', "{}", '{"a":', "[" * 100_000, b"\xff\xfe", b"\xef\xbb\xbf{}", "9" * 5000]
)
def test_what_is_no_receipt_is_forged(text: str | bytes) -> None:
    """Nothing makes the program fail."""
    assert JUDGE.verify(text).verdict is Verdict.FORGED


def left_over(text: str) -> str:
    """Return another Base64 of the same 64 or 32 bytes: the last character has bits that nobody reads."""
    last = text.rstrip("=")[-1]
    return text.replace(f"{last}=", f"{chr(ord(last) + 1)}=")


@pytest.mark.parametrize("member", ["signature", "path"])
def test_what_could_be_written_in_two_ways_is_taken_in_one(member: str) -> None:
    """Bits without a meaning cannot carry anything unseen."""
    receipt = json.loads(FIVE.lines[0])
    if member == "signature":
        receipt["signature"]["value"] = left_over(receipt["signature"]["value"])
    else:
        receipt["path"][0] = left_over(receipt["path"][0])

    assert JUDGE.verify(json.dumps(receipt)).verdict is Verdict.FORGED


@pytest.mark.parametrize("change", [{"leafIndex": 1}, {"treeSize": True}, {"leafIndex": False}, {"treeSize": 0}])
def test_a_receipt_that_stands_alone_has_one_place(change: dict[str, Any]) -> None:
    """Where there is no path, too, nothing of the proof can be changed."""
    alone = signed([record()])
    judge = alone.verifier()

    changed = judge.verify(json.dumps(json.loads(alone.lines[0]) | change))

    assert judge.verify(alone.lines[0]).verdict is Verdict.VALID
    assert changed.verdict is Verdict.FORGED


def test_the_record_of_one_does_not_stand_with_the_proof_of_another() -> None:
    """Both are genuine; together they are not."""
    first, second = json.loads(FIVE.lines[0]), json.loads(FIVE.lines[1])

    mixed = JUDGE.verify(json.dumps(first | {"document": second["document"]}))

    assert (mixed.verdict, mixed.cost_nanos) == (Verdict.FORGED, 0)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_receipts_of_both_versions_of_a_rotated_key_are_valid() -> None:
    """Old ones stay what they are; new ones are of the new version."""
    key = KeyInMemory()
    old = signed([record(1)], key=key)
    key.rotate()
    new = signed([record(2)], key=key)

    verifier = new.verifier()

    assert [json.loads(one.lines[0])["signature"]["keyVersion"] for one in (old, new)] == [1, 2]
    assert [verifier.verify(one.lines[0]).verdict for one in (old, new)] == [Verdict.VALID] * 2


def test_a_receipt_of_a_version_that_one_does_not_have_is_not_called_forged() -> None:
    """The keys are older than the receipt."""
    key = KeyInMemory()
    verifier = Verifier(key_set(key))
    key.rotate()

    finding = verifier.verify(signed([record()], key=key).lines[0])

    assert finding.verdict is Verdict.UNKNOWN_KEY
    assert "version 2" in finding.detail


def test_a_receipt_of_another_tenant_is_refused_under_a_tenants_keys() -> None:
    """Though the signature is good: it is no receipt of one's own. Keys for every tenant take it."""
    foreign = signed([replace(record(), tenant_id="rival")])

    refused = foreign.verifier("tenants/acme").verify(foreign.lines[0])
    taken = foreign.verifier("").verify(foreign.lines[0])

    assert (refused.verdict, refused.cost_nanos) == (Verdict.UNKNOWN_KEY, 0)
    assert "tenants/rival" in refused.detail
    assert taken.verdict is Verdict.VALID


def test_a_receipt_of_another_installation_is_forged() -> None:
    """Its key has the same name and version, and is another."""
    assert signed([record()]).verifier().verify(FIVE.lines[0]).verdict is Verdict.FORGED


# --- sums -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_lines_are_rounded_as_the_price_book_rounds(quantity: int, rate: int) -> None:
    """Two implementations, one result."""
    assert rounded_cost_nanos(quantity, rate) == charge_nanos(quantity, rate)


@pytest.mark.parametrize(("quantity", "due"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_goes_to_the_even_one(quantity: int, due: int) -> None:
    """0.5, 1.5, 2.5 and 3.5."""
    assert rounded_cost_nanos(quantity, 500_000) == due


GENUINE: dict[str, Sequence[UsageRecord]] = {
    "free": [record(1, ())],
    "in suspense": [suspended()],
    "settled late": [suspended(), correction(suspended(), [line()])],
    "ruled": [suspended(), replace(correction(suspended(), ()), cost_nanos=-400)],
    "ruled after it was settled late": [
        suspended(),
        correction(suspended(), [line()]),
        replace(correction(suspended(), ()), cost_nanos=5),
    ],
    "beyond 2^53": [record(1, [line(quantity=2**40, rate=2**40)])],
}


@pytest.mark.parametrize("case", GENUINE)
def test_sums_of_genuine_receipts_are_right(case: str) -> None:
    """Whatever became of the call."""
    receipt = signed(GENUINE[case])

    finding = receipt.verifier().verify(receipt.lines[0])

    assert finding.verdict is Verdict.VALID, finding.detail
    assert finding.cost_nanos == sum(one.cost_nanos for one in GENUINE[case])


def with_changed(document: str, change: Callable[[Any], Any]) -> str:
    changed = json.loads(document)
    change(changed)
    return json.dumps(changed)


WRONG_SUMS: dict[str, Callable[[Any], Any]] = {
    "total": lambda document: document.update(cost_nanos=document["cost_nanos"] + 1),
    "a line": lambda document: document["booking"]["lines"][0].update(cost_nanos=41),
    "a rate": lambda document: document["booking"]["lines"][0].update(nanos_per_million_units=5_000_000),
    "a line left out": lambda document: document["booking"]["lines"].pop(),
    "all lines left out": lambda document: document["booking"]["lines"].clear(),
}


@pytest.mark.parametrize("case", WRONG_SUMS)
def test_a_signed_receipt_whose_sums_are_wrong_is_not_valid(case: str) -> None:
    """The server is not believed, either."""
    receipt = signed_text(with_changed(document_of(record()), WRONG_SUMS[case]))

    finding = receipt.verifier().verify(receipt.lines[0])

    assert (finding.verdict, finding.cost_nanos) == (Verdict.SUM_WRONG, 0)
    assert finding.detail


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(version="tollhouse.receipt/2"),
        lambda document: document.pop("booking"),
        lambda document: document.update(cost_nanos="60"),
        lambda document: document["booking"]["lines"][0].update(quantity=True),
    ],
)
def test_a_signed_text_of_another_form_is_unreadable(change: Callable[[Any], Any]) -> None:
    """A later version of receipts is neither valid nor forged for who does not know it."""
    receipt = signed_text(with_changed(document_of(record()), change))

    assert receipt.verifier().verify(receipt.lines[0]).verdict is Verdict.UNREADABLE
