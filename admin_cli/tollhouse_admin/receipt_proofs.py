"""Whether a receipt is genuine, from its text and public keys alone: no server, no network. Rules: receipts.proto."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tollhouse_admin.failures import Failure, wrong_usage
from tollhouse_admin.receipt_sums import VERSION, sum_error

ALGORITHM: Final = "Ed25519"

_SIGNED_FOR: Final = b"tollhouse.receipts/1\n"
_HASH_BYTES: Final = 32
_ROOTS_REMEMBERED: Final = 1024
_RECEIPT: Final = frozenset({"document", "treeSize", "leafIndex", "path", "signature"})
_SIGNATURE: Final = frozenset({"algorithm", "key", "keyVersion", "value"})


class Verdict(StrEnum):
    """What can be said of a receipt."""

    VALID = "valid"
    FORGED = "forged"
    UNKNOWN_KEY = "unknown key"
    SUM_WRONG = "sum wrong"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one receipt. Of one that is not valid, `attempt_id` is only what it says itself."""

    verdict: Verdict
    attempt_id: str = ""
    cost_nanos: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """Public keys by name and version, and the tenant for whose receipts they are; empty for every tenant."""

    tenant: str
    keys: Mapping[tuple[str, int], Ed25519PublicKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Receipt:
    document: str
    tree_size: int
    leaf_index: int
    path: Sequence[bytes]
    algorithm: str
    key: tuple[str, int]
    signature: bytes


class _Wrong(Exception):
    """A verdict against a receipt."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.verdict = verdict
        self.detail = detail


def read_keys(path: Path) -> KeySet:
    """Return the keys of a file that `tollhouse receipts keys -o json` wrote.

    Raises:
        Failure: it cannot be read, or is no such file.
    """
    try:
        document = strict_json(path.read_bytes())
        return KeySet(
            tenant=_text(document["tenant"]), keys=dict(_public_key(entry) for entry in _list(document["keys"]))
        )
    except OSError as error:
        raise wrong_usage(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise _no_keys(path) from error


def _public_key(entry: Any) -> tuple[tuple[str, int], Ed25519PublicKey]:
    if entry["algorithm"] != ALGORITHM:
        raise ValueError(entry["algorithm"])
    public_key = Ed25519PublicKey.from_public_bytes(_bytes(entry["publicKey"]))
    return (_text(entry["key"]), _count(entry["version"])), public_key


def _no_keys(path: Path) -> Failure:
    return wrong_usage(f"{path} is not a file of receipt keys", "Write one with 'tollhouse receipts keys -o json'.")


class Verifier:
    """Verifies receipts under one set of keys."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys
        # Receipts of one tree have one signature: it is verified once.
        self._signed_roots: set[tuple[tuple[str, int], bytes, bytes]] = set()

    def verify(self, text: bytes | str) -> Finding:
        """Return the verdict on one receipt, given as the JSON text of it with its proof."""
        document = ""
        try:
            receipt = _parse(text)
            document = receipt.document
            self._require_signature(receipt)
            return self._read(document)
        except _Wrong as wrong:
            return Finding(verdict=wrong.verdict, attempt_id=_claimed_attempt(document), detail=wrong.detail)

    def _require_signature(self, receipt: _Receipt) -> None:
        public_key = self._keys.keys.get(receipt.key) if receipt.algorithm == ALGORITHM else None
        if public_key is None:
            name, version = receipt.key
            detail = f"signed by version {version} of {receipt.algorithm} key {name!r}, which is not among the keys"
            raise _Wrong(Verdict.UNKNOWN_KEY, detail)
        message = _SIGNED_FOR + receipt.tree_size.to_bytes(8, "big") + _root(receipt)
        signed = (receipt.key, message, receipt.signature)
        if signed in self._signed_roots:
            return
        try:
            public_key.verify(receipt.signature, message)
        except InvalidSignature:
            raise _Wrong(Verdict.FORGED, "it is not what was signed") from None
        if len(self._signed_roots) >= _ROOTS_REMEMBERED:
            self._signed_roots.clear()
        self._signed_roots.add(signed)

    def _read(self, text: str) -> Finding:
        """Return the verdict on a document that was signed."""
        try:
            document = strict_json(text)
            if document["version"] != VERSION:
                raise _Wrong(Verdict.UNREADABLE, f"it is of version {document['version']!r}")
            tenant, attempt_id, cost_nanos = document["tenant"], _text(document["attempt_id"]), document["cost_nanos"]
            error = sum_error(document)
        except (ValueError, TypeError, KeyError):
            raise _Wrong(Verdict.UNREADABLE, "it was signed, but is not of the form of its version") from None
        if self._keys.tenant not in ("", tenant):
            raise _Wrong(Verdict.UNKNOWN_KEY, f"it is of {tenant}, the keys are for {self._keys.tenant}")
        if error:
            raise _Wrong(Verdict.SUM_WRONG, error)
        return Finding(verdict=Verdict.VALID, attempt_id=attempt_id, cost_nanos=cost_nanos)


def _root(receipt: _Receipt) -> bytes:
    """Return the root to which the path leads."""
    found = hashlib.sha256(b"\x00" + receipt.document.encode()).digest()
    index, size, path = receipt.leaf_index, receipt.tree_size, iter(receipt.path)
    while size > 1:
        if index % 2 or index + 1 < size:
            sibling = next(path, b"")
            left, right = (sibling, found) if index % 2 else (found, sibling)
            found = hashlib.sha256(b"\x01" + left + right).digest()
        index, size = index // 2, (size + 1) // 2
    if next(path, None) is not None:
        raise _Wrong(Verdict.FORGED, "its path is longer than the way to the root")
    return found


# --- reading strictly: what can be written in two ways could be changed unseen ----------------------------------------


def strict_json(text: bytes | str) -> Any:
    """Return what a JSON text says, which has neither fractions nor a name twice.

    Raises:
        ValueError: it is none, or is too deep.
    """
    # json itself would take other encodings, too.
    decoded = text if isinstance(text, str) else text.decode()
    try:
        return json.loads(
            decoded, object_pairs_hook=_without_duplicates, parse_float=_no_number, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("too deep") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a whole number")


def _parse(text: bytes | str) -> _Receipt:
    try:
        receipt = strict_json(text)
        signature = receipt["signature"]
        if set(receipt) != _RECEIPT or set(signature) != _SIGNATURE:
            raise ValueError("unknown members")
        parsed = _Receipt(
            document=_text(receipt["document"]),
            tree_size=_count(receipt["treeSize"]),
            leaf_index=_count(receipt["leafIndex"]),
            path=[_hash(entry) for entry in _list(receipt["path"])],
            algorithm=_text(signature["algorithm"]),
            key=(_text(signature["key"]), _count(signature["keyVersion"])),
            signature=_bytes(signature["value"]),
        )
    except (ValueError, TypeError, KeyError):
        raise _Wrong(Verdict.FORGED, "it is not a receipt") from None
    if not parsed.leaf_index < parsed.tree_size:
        raise _Wrong(Verdict.FORGED, "its place is outside of what was signed")
    return parsed


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    # A lone surrogate has no UTF-8.
    value.encode()
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(value)
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _bytes(value: Any) -> bytes:
    decoded = base64.b64decode(_text(value), validate=True)
    if base64.b64encode(decoded).decode() != value:
        raise ValueError("Base64 with something left over")
    return decoded


def _hash(value: Any) -> bytes:
    decoded = _bytes(value)
    if len(decoded) != _HASH_BYTES:
        raise ValueError("not a hash")
    return decoded


def _claimed_attempt(text: str) -> str:
    """Return the attempt that a document is of by its own words, empty where it has none."""
    try:
        return _text(strict_json(text)["attempt_id"])
    except (ValueError, TypeError, KeyError):
        return ""
