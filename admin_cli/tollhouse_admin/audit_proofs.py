"""Whether an exported trail is whole and genuine, from files and public keys alone: no server, no network.

Rules: audit.proto. Every byte of an export counts: of a line, its hash; of opened personal data, its commitment; of the
hashes, the signed checkpoints of the anchor, which lies where nobody who can change the trail can change it.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature

from tollhouse_admin.receipt_proofs import ALGORITHM, KeySet, strict_json

_HASHED_FOR: Final = b"tollhouse.audit/1\n"
_SIGNED_FOR: Final = b"tollhouse.audit-checkpoints/1\n"
_CHECKPOINT_VERSION: Final = "tollhouse.audit-checkpoint/1"
_BEGINNING: Final = "0" * 64
_MOST_FINDINGS: Final = 100

_HEAD: Final = re.compile(rb'\{"metadata":\{"tenant_uid":"([a-z0-9-]{2,63})","sequence":([1-9][0-9]{0,18}),')
_TAIL: Final = re.compile(
    rb',"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"(?:,"salt":"([0-9a-f]{32})")?\}(?:,(.+))?\}\n?',
    re.DOTALL,
)
_COMMITMENT: Final = re.compile(rb',"commitment":"([0-9a-f]{64})","before":')
_PREV: Final = b',"prev":"'
# In a string of JSON a quotation mark has a backslash before it, so this stands nowhere but between members. What
# somebody called so himself comes before: the last one counts.
_AFTER_PREV: Final = b'","hash":"'
_PREV_BYTES: Final = len(_PREV) + 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed checkpoint: what it says."""

    tenant: str
    number: int
    sequence: int
    hash: str
    first_sequence: int
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place in which something is not what it was; `place` says of what, for people."""

    place: str
    problem: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What a verification has found. Nobody has changed anything when `findings` is empty."""

    tenant: str = ""
    events: int = 0
    first_sequence: int = 0
    last_sequence: int = 0
    signed_sequence: int = 0
    checkpoints: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, place: str, problem: str) -> None:
        """Note a finding; after the hundredth only that there are more."""
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(Finding(place=place, problem=problem))
        elif len(self.findings) == _MOST_FINDINGS:
            self.findings.append(Finding(place="...", problem="and more"))


class _Wrong(Exception):
    """What is read is not what it should be."""


# --- the anchor -------------------------------------------------------------------------------------------------------


def verified_checkpoints(lines: Iterable[bytes], keys: KeySet, report: Report) -> Sequence[Checkpoint]:
    """Return the checkpoints of an anchor that are genuine and follow on each other; the rest goes into the report."""
    found: list[Checkpoint] = []
    previous = _BEGINNING
    for count, line in enumerate(lines, start=1):
        try:
            document, checkpoint = _checkpoint(line, keys)
            if document["previous"] != previous or checkpoint.number != count:
                raise _Wrong("does not follow on the one before: one was changed, or is missing")
            if found:
                _require_progress(found[-1], checkpoint)
        except _Wrong as wrong:
            report.add(f"checkpoint in line {count} of the anchor", str(wrong))
            break
        previous = hashlib.sha256(_text(strict_json(line)["document"]).encode()).hexdigest()
        found.append(checkpoint)
    report.checkpoints = len(found)
    return found


def _checkpoint(line: bytes, keys: KeySet) -> tuple[dict[str, Any], Checkpoint]:
    try:
        outer = strict_json(line)
        signature = outer["signature"]
        if set(outer) != {"document", "treeSize", "leafIndex", "path", "signature"}:
            raise _Wrong("is not a checkpoint")
        if set(signature) != {"algorithm", "key", "keyVersion", "value"}:
            raise _Wrong("is not a checkpoint")
        text = _text(outer["document"])
        root = _root(text, outer["treeSize"], outer["leafIndex"], [_bytes(one) for one in outer["path"]])
        message = _SIGNED_FOR + int(outer["treeSize"]).to_bytes(8, "big") + root
        _require_signature(signature, message, keys)
        document = strict_json(text)
        if document["version"] != _CHECKPOINT_VERSION:
            raise _Wrong(f"is of version {document['version']!r}")
        members = {name: document[name] for name in Checkpoint.__dataclass_fields__}
        return document, Checkpoint(**members)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise _Wrong("is not a checkpoint") from None


def _require_signature(signature: Mapping[str, Any], message: bytes, keys: KeySet) -> None:
    name, version = _text(signature["key"]), signature["keyVersion"]
    public_key = keys.keys.get((name, version)) if signature["algorithm"] == ALGORITHM else None
    if public_key is None:
        raise _Wrong(f"is signed by version {version!r} of key {name!r}, which is not among the keys")
    try:
        public_key.verify(_bytes(signature["value"]), message)
    except InvalidSignature:
        raise _Wrong("is not what was signed") from None


def _root(document: str, size: Any, index: Any, path: Sequence[bytes]) -> bytes:
    """Return the root to which the path leads, as receipts.proto says."""
    if type(size) is not int or type(index) is not int or not 0 <= index < size:
        raise _Wrong("is not a checkpoint")
    found, left = hashlib.sha256(b"\x00" + document.encode()).digest(), list(path)
    while size > 1:
        if index % 2 or index + 1 < size:
            sibling = left.pop(0) if left else b""
            pair = sibling + found if index % 2 else found + sibling
            found = hashlib.sha256(b"\x01" + pair).digest()
        index, size = index // 2, (size + 1) // 2
    if left or any(len(one) != hashlib.sha256().digest_size for one in path):
        raise _Wrong("has a path that does not lead to the root")
    return found


def _require_progress(before: Checkpoint, after: Checkpoint) -> None:
    if after.tenant != before.tenant:
        raise _Wrong(f"is of {after.tenant}, those before are of {before.tenant}")
    if after.sequence < before.sequence or after.first_sequence < before.first_sequence:
        raise _Wrong("goes back behind the one before")
    if after.sequence == before.sequence and after.hash != before.hash:
        raise _Wrong("contradicts the one before")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _bytes(value: Any) -> bytes:
    decoded = base64.b64decode(_text(value), validate=True)
    if base64.b64encode(decoded).decode() != value:
        raise ValueError("Base64 with something left over")
    return decoded


# --- the trail --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What an export is expected to be: the whole trail, unless a first or last sequence says that it is a part."""

    first_sequence: int | None = None
    last_sequence: int | None = None


def verify_trail(
    lines: Iterable[bytes], checkpoints: Sequence[Checkpoint], report: Report, *, part: Part = Part()
) -> Iterator[int]:
    """Verify an export line by line, into the report; yield the number of lines now and then, to show progress."""
    newest = checkpoints[-1] if checkpoints else None
    signed = {one.sequence: one.hash for one in checkpoints}
    report.tenant = newest.tenant if newest else ""
    report.signed_sequence = newest.sequence if newest else 0
    sequence, last_hash, count = 0, "", 0
    for line in lines:
        count += 1
        try:
            tenant, found, previous, digest = _link(line)
        except _Wrong as wrong:
            # Whatever it was, the next one is judged by its own words.
            report.add(f"line {count}", str(wrong))
            last_hash = ""
            continue
        if tenant != report.tenant:
            report.add(f"line {count}", f"is of {tenant}, the trail of {report.tenant or 'nobody known'}")
        if not sequence:
            _check_beginning(report, found, previous, checkpoints, part)
        elif found != sequence + 1:
            report.add(f"line {count}", f"is event {found} and follows on {sequence}")
        elif last_hash and previous != last_hash:
            report.add(f"event {found}", "is not linked to the one before it")
        if signed.get(found, digest) != digest:
            report.add(f"event {found}", "is not what was signed")
        sequence, last_hash = found, digest
        report.last_sequence = max(report.last_sequence, found)
        if not count % 10_000:
            yield count
    report.events = count
    _check_end(report, newest, part)
    yield count


def _link(line: bytes) -> tuple[str, int, str, str]:
    """Return tenant, sequence, the hash before it and its own of an event whose line is what was hashed."""
    head = _HEAD.match(line)
    place = line.rfind(_AFTER_PREV) - _PREV_BYTES
    tail = _TAIL.fullmatch(line, place) if head and place > 0 else None
    if head is None or tail is None:
        raise _Wrong("is not an event of an export")
    previous, digest, salt, members = tail.groups()
    hashed = b"%s}}" % line[: place + _PREV_BYTES + 1]
    found = hashlib.sha256(_HASHED_FOR + len(hashed).to_bytes(8, "big") + hashed).hexdigest()
    if found.encode() != digest:
        raise _Wrong("is not what was linked")
    if (salt is None) != (members is None):
        raise _Wrong("has personal data without its salt, or a salt without personal data")
    if salt is not None:
        commitment = _COMMITMENT.search(line, 0, place)
        committed = hashlib.sha256(bytes.fromhex(salt.decode()) + members).hexdigest()
        if commitment is None or commitment[1].decode() != committed:
            raise _Wrong("has personal data that is not what was committed to")
    return head[1].decode(), int(head[2]), previous.decode(), found


def _check_beginning(report: Report, first: int, previous: str, checkpoints: Sequence[Checkpoint], part: Part) -> None:
    report.first_sequence = first
    if part.first_sequence is not None:
        if first != part.first_sequence:
            report.add("the beginning", f"is event {first}, not {part.first_sequence}")
        return
    if first == 1:
        if previous != _BEGINNING:
            report.add("event 1", "is linked to something before it")
        return
    dropped_through = checkpoints[-1].first_sequence - 1 if checkpoints else 0
    genuine = any(one.sequence == first - 1 and one.hash == previous for one in checkpoints)
    if first - 1 > dropped_through or not genuine:
        report.add("the beginning", f"events before {first} are missing, and no checkpoint says that they were dropped")


def _check_end(report: Report, newest: Checkpoint | None, part: Part) -> None:
    if newest is None:
        report.add("the anchor", "has no checkpoint: nothing vouches for the trail")
    if part.last_sequence is not None:
        if report.last_sequence != part.last_sequence:
            report.add("the end", f"is event {report.last_sequence}, not {part.last_sequence}")
    elif newest is not None and report.last_sequence < newest.sequence >= newest.first_sequence:
        known = f"events after {report.last_sequence} are missing: checkpoints know {newest.sequence}"
        report.add("the end", f"{known}; if the export is older than the anchor, let it go on, or say --to")
