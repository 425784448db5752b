"""Whether a statement is what was sealed, and adds up: from its text, public keys, and records or receipts alone."""

import base64
import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.receipt_files import read_receipts
from tollhouse_admin.receipt_proofs import Verdict, Verifier, strict_json

VERSION: Final = "tollhouse.statement/1"

_SIGNED_FOR: Final = b"tollhouse.statements/1\n"
_COUNTED: Final = frozenset({"SETTLED", "SUSPENSE"})
_UNITEMISED: Final = "unitemised"
_MOST_LABELS: Final = 1_000
"""Labels in a statement; one with as many may have left some out."""

_MINUTE: Final = len("2026-11-01T00:00")

Keys = Mapping[int, Ed25519PublicKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at; `detail` says what is wrong, or what was found.

    What was not made is not wrong; `detail` says what it takes.
    """

    what: str
    is_right: bool
    detail: str = ""
    is_made: bool = True

    @property
    def verdict(self) -> str:
        """Return right, wrong or unchecked."""
        if not self.is_made:
            return "unchecked"
        return "right" if self.is_right else "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """One record, from whichever file: `path` are ids of departments, `lines` are (SKU, nano-dollars)."""

    booked_at: str
    kind: str
    path: Sequence[str]
    project: str
    tier: str
    model: str
    cost_nanos: int
    lines: Sequence[tuple[str, int]]
    labels: Mapping[str, str]


def read_statement(path: Path) -> Mapping[str, Any]:
    """Return what `report export --format json` wrote: the members `statement` and `seal`.

    Raises:
        Failure: it cannot be read, or is no such file.
    """
    try:
        document = strict_json(path.read_bytes())
        if document["statement"]["version"] != VERSION:
            raise ValueError(document["statement"]["version"])
    except OSError as error:
        raise wrong_usage(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        advice = "Write one with 'tollhouse report export --format json'."
        raise wrong_usage(f"{path} is not a statement of {VERSION}", advice) from error
    found: Mapping[str, Any] = document
    return found


def read_statement_keys(path: Path) -> Keys:
    """Return the keys, by version, of a file that `report keys -o json` wrote.

    Raises:
        Failure: it cannot be read, or is no such file.
    """
    try:
        entries = strict_json(path.read_bytes())["keys"]
        return {
            entry["version"]: Ed25519PublicKey.from_public_bytes(base64.b64decode(entry["publicKey"], validate=True))
            for entry in entries
        }
    except OSError as error:
        raise wrong_usage(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise wrong_usage(
            f"{path} is not a file of keys of statements", "Write one with 'tollhouse report keys -o json'."
        ) from error


class StatementVerifier:
    """Checks one statement; without keys its seal is not looked at beyond the digest."""

    def __init__(self, document: Mapping[str, Any], keys: Keys | None) -> None:
        self._statement = document["statement"]
        self._seal = document["seal"]
        self._keys = keys

    def checks(self) -> Iterator[Check]:
        """Yield what can be said from the statement alone; what is not even of the form of one is wrong, too."""
        try:
            yield from self._sealed()
            yield from self._sums()
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            yield Check(what="form", is_right=False, detail=f"it is not as statements are ({type(error).__name__})")

    # --- the seal ---------------------------------------------------------------------------------------------------

    def _sealed(self) -> Iterator[Check]:
        if self._seal is None:
            yield Check(what="seal", is_right=self._keys is None, detail="it has none: the month is not closed")
            return
        text = json.dumps(self._statement, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        found, said = hashlib.sha256(text.encode()).hexdigest(), str(self._seal["sha256"])
        yield Check(what="digest", is_right=found == said, detail=found if found == said else f"{found}, not {said}")
        if self._keys is None:
            yield _unchecked("signature", "the signature was not checked: that takes --keys")
        else:
            yield from self._signed(self._keys)

    def _signed(self, keys: Keys) -> Iterator[Check]:
        key = keys.get(self._seal["key_version"])
        if key is None:
            version = self._seal["key_version"]
            detail = f"it is signed by version {version}, which is not among the keys"
            yield Check(what="signature", is_right=False, detail=detail)
            return
        digest, at, by = (str(self._seal[name]) for name in ("sha256", "closed_at", "closed_by"))
        if self._is_signed(key, f"{digest}\n{at}\n{by}"):
            yield Check(what="signature", is_right=True, detail=f"closed at {at} by {by}")
            return
        # So it was once signed; whoever changes the moment or the closer of a seal does not get here.
        is_right = self._is_signed(key, digest)
        detail = (
            "of the digest alone, not of when and by whom it was closed" if is_right else "it is not what was signed"
        )
        yield Check(what="signature", is_right=is_right, detail=detail)

    def _is_signed(self, key: Ed25519PublicKey, leaf: str) -> bool:
        try:
            message = _SIGNED_FOR + int(self._seal["tree_size"]).to_bytes(8, "big") + self._root(leaf)
            key.verify(base64.b64decode(self._seal["signature"], validate=True), message)
        except (InvalidSignature, ValueError, OverflowError, StopIteration):
            return False
        return True

    def _root(self, leaf: str) -> bytes:
        """Return the root to which the path leads from a leaf, as with receipts."""
        found = hashlib.sha256(b"\x00" + leaf.encode()).digest()
        index, size = self._seal["leaf_index"], self._seal["tree_size"]
        path = iter([bytes.fromhex(one) for one in self._seal["path"]])
        if not 0 <= index < size:
            raise ValueError(index)
        while size > 1:
            if index % 2 or index + 1 < size:
                sibling = next(path)
                left, right = (sibling, found) if index % 2 else (found, sibling)
                found = hashlib.sha256(b"\x01" + left + right).digest()
            index, size = index // 2, (size + 1) // 2
        return found

    # --- the sums ---------------------------------------------------------------------------------------------------

    def _sums(self) -> Iterator[Check]:
        totals, entries = self._statement["totals"], self._statement["entries"]
        cost, charge = totals["cost_nanos"], totals["charge_nanos"]
        yield _same("lines", sum(line["cost_nanos"] for line in self._statement["lines"]), cost)
        yield _same("entries", cost + sum(entry["amount_nanos"] for entry in entries), charge)
        for dimension, parts in self._statement["breakdowns"].items():
            for name in ("calls", "cost_nanos", "charge_nanos"):
                yield _same(f"{name} by {dimension}", sum(part["amounts"][name] for part in parts), totals[name])

    # --- from records -----------------------------------------------------------------------------------------------

    def against_records(self, path: Path) -> Iterator[Check]:
        """Yield what a recomputation from exported records finds.

        Raises:
            Failure: it is no file of records.
        """
        try:
            yield from self._against(list(_records(path)), "records")
        except (ValueError, KeyError, TypeError) as error:
            advice = "Write one with 'tollhouse report export --records'."
            raise wrong_usage(f"{path} is not a file of records", advice) from error

    def against_receipts(self, path: Path, receipts: Verifier | None = None) -> Iterator[Check]:
        """Yield what a recomputation from receipts finds, and with `receipts` whether each of them is genuine.

        Raises:
            Failure: it is no file of receipts.
        """
        try:
            texts = list(read_receipts(path))
            yield _genuine(texts, receipts)
            documents = [json.loads(json.loads(text)["document"]) for text in texts]
            tenant = str(self._statement["scope"]).partition("/departments/")[0]
            own = [document for document in documents if document["tenant"] == tenant]
            yield _of_tenant(documents, tenant)
            yield _once_each(own)
            yield from self._against(list(_receipts(own)), "receipts")
        except (ValueError, KeyError, TypeError) as error:
            raise wrong_usage(
                f"{path} is not a file of receipts", "Write one with 'tollhouse receipts export'."
            ) from error

    def _against(self, booked: Iterable[Booked], source: str) -> Iterator[Check]:
        own = [one for one in booked if self._is_own(one)]
        totals = self._statement["totals"]
        yield _same(f"cost from {source}", sum(one.cost_nanos for one in own), totals["cost_nanos"])
        yield _same(f"calls from {source}", sum(one.kind in _COUNTED for one in own), totals["calls"])
        for dimension, key_of in {**_KEYS, "day": self._day_of()}.items():
            costs: dict[str, int] = defaultdict(int)
            for one in own:
                costs[key_of(one)] += one.cost_nanos
            # A project that was moved has a part in each department that it was in.
            said: dict[str, int] = defaultdict(int)
            for part in self._statement["breakdowns"][dimension]:
                said[_last(part["key"])] += part["amounts"]["cost_nanos"]
            yield _same(f"cost by {dimension} from {source}", _without_zeros(costs), _without_zeros(said))
        yield _same(f"lines from {source}", _without_zeros(_lines_of(own)), _without_zeros(self._lines()))
        labels = {part["key"]: part["amounts"]["cost_nanos"] for part in self._statement["labels"]}
        booked_for = _labels_of(own)
        if len(labels) >= _MOST_LABELS:
            # The statement has the dearest alone.
            booked_for = {label: booked_for.get(label, 0) for label in labels}
        yield _same(f"cost by label from {source}", _without_zeros(booked_for), _without_zeros(labels))

    def _day_of(self) -> Callable[[Booked], str]:
        zone = ZoneInfo(str(self._statement["time_zone"]))
        # Of a month there are some ten thousand minutes, and of records any number.
        day = cache(lambda minute: str(datetime.fromisoformat(f"{minute}Z").astimezone(zone).date()))
        return lambda one: day(one.booked_at[:_MINUTE])

    def _is_own(self, one: Booked) -> bool:
        period, scope = self._statement["period"], str(self._statement["scope"])
        department = scope.partition("/departments/")[2]
        return period["start"] <= one.booked_at < period["end"] and (not department or department in one.path)

    def _lines(self) -> dict[tuple[str, ...], int]:
        return {
            (_last(line["department"]), _last(line["project"]), line["tier"], line["model"], line["sku"]): line[
                "cost_nanos"
            ]
            for line in self._statement["lines"]
        }


_KEYS: Final[Mapping[str, Callable[[Booked], str]]] = {
    "department": lambda one: one.path[-1],
    "project": lambda one: one.project,
    "tier": lambda one: one.tier,
    "model": lambda one: one.model,
}


def _lines_of(booked: Iterable[Booked]) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = defaultdict(int)
    for one in booked:
        place = (one.path[-1], one.project, one.tier, one.model)
        for sku, nanos in one.lines:
            found[(*place, sku)] += nanos
        found[(*place, _UNITEMISED)] += one.cost_nanos - sum(nanos for _, nanos in one.lines)
    return found


def _labels_of(booked: Iterable[Booked]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for one in booked:
        for label, value in one.labels.items():
            found[f"{label}={value}"] += one.cost_nanos
    return found


def _records(path: Path) -> Iterator[Booked]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["kind"] != "REFUSED":
                yield Booked(
                    booked_at=row["booked_at"],
                    kind=row["kind"],
                    path=row["department_path"].split("/"),
                    project=row["project"],
                    tier=row["tier"],
                    model=row["model"],
                    cost_nanos=int(row["cost_nanos"]),
                    lines=[(line["sku"], line["cost_nanos"]) for line in json.loads(row["lines"])],
                    labels=json.loads(row["labels"]),
                )


def _receipts(documents: Iterable[Mapping[str, Any]]) -> Iterator[Booked]:
    for document in documents:
        for entry in (document["booking"], *document["corrections"]):
            yield Booked(
                booked_at=entry["booked_at"],
                kind=entry["kind"],
                path=document["department_path"],
                project=_last(document["project"]),
                tier=document["tier"],
                model=document["model"],
                cost_nanos=entry["cost_nanos"],
                lines=[(line["sku"], line["cost_nanos"]) for line in entry["lines"]],
                labels=document["labels"],
            )


def _unchecked(what: str, detail: str) -> Check:
    return Check(what=what, is_right=True, detail=detail, is_made=False)


def _genuine(texts: Sequence[bytes], receipts: Verifier | None) -> Check:
    if receipts is None:
        detail = "whether the receipts are genuine was not checked: that takes --receipt-keys"
        return _unchecked("receipts genuine", detail)
    findings = [receipts.verify(text) for text in texts]
    wrong = [
        f"{one.attempt_id or f'receipt {number}'}: {one.verdict.value}, {one.detail}"
        for number, one in enumerate(findings, start=1)
        if one.verdict is not Verdict.VALID
    ]
    return _none_of(wrong, what="receipts genuine", looked_at=len(texts))


def _of_tenant(documents: Sequence[Mapping[str, Any]], tenant: str) -> Check:
    foreign = [f"{one['attempt_id']} is of {one['tenant']}" for one in documents if one["tenant"] != tenant]
    return _none_of(foreign, what="receipts of the tenant", looked_at=len(documents))


def _once_each(documents: Sequence[Mapping[str, Any]]) -> Check:
    counts = Counter(document["attempt_id"] for document in documents)
    again = [f"{attempt_id} is there {count} times" for attempt_id, count in counts.items() if count > 1]
    return _none_of(again, what="receipts once each", looked_at=len(documents))


def _none_of(wrong: Sequence[str], *, what: str, looked_at: int) -> Check:
    more = f"; {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Check(what=what, is_right=not wrong, detail=f"{wrong[0]}{more}" if wrong else f"{looked_at} receipts")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _without_zeros(costs: Mapping[Any, int]) -> dict[Any, int]:
    return {key: nanos for key, nanos in costs.items() if nanos}


def _same(what: str, found: Any, said: Any) -> Check:
    if found == said:
        return Check(what=what, is_right=True, detail=str(found) if isinstance(found, int) else f"{len(found)} sums")
    if isinstance(found, int):
        return Check(what=what, is_right=False, detail=f"{found}, the statement says {said}")
    wrong = sorted(key for key in found.keys() | said.keys() if found.get(key) != said.get(key))
    return Check(what=what, is_right=False, detail=f"another sum for {wrong[0]} and {len(wrong) - 1} more")
