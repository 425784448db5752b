"""What a device does, for backends and tests: keys in files, receipts from JSON lines, signatures."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from google.protobuf.json_format import ParseDict, ParseError
from tollhouse.v1 import devices_pb2 as pb

from tollhouse_admin.failures import Failure, wrong_usage
from tollhouse_admin.secret_source import new_key_file

SIGNED_PREFIX: Final = b"tollhouse.v1.OnDeviceReceipt\0"


def write_key_pair(file: Path) -> tuple[Path, str]:
    """Write a new private key to `file`, which only the user may read; return the public key's file and fingerprint.

    Raises:
        Failure: one of the files exists, or cannot be made.
    """
    key = Ed25519PrivateKey.generate()
    public_file = file.with_name(f"{file.name}.pub")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with new_key_file(file) as write:
        try:
            with public_file.expanduser().open("xb") as stream:
                stream.write(public)
        except OSError as error:
            raise wrong_usage(f"{public_file} cannot be written: {error.strerror}", "Name another file.") from error
        write(private.rstrip())
    return public_file, fingerprint(key.public_key().public_bytes_raw())


def fingerprint(public_key: bytes) -> str:
    """Return a key's fingerprint as the server shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip("=")


def read_public_key(file: Path) -> bytes:
    """Return a public key as it is in a file, which the server reads.

    Raises:
        Failure: the file cannot be read, or is a private key.
    """
    text = _bytes(file)
    if b"PRIVATE KEY" in text:
        raise wrong_usage(f"{file} is a private key, which must not leave its device", f"Name {file}.pub, perhaps.")
    return text


def read_private_key(file: Path) -> Ed25519PrivateKey:
    """Return the Ed25519 key in a PEM file.

    Raises:
        Failure: the file cannot be read, or has none.
    """
    try:
        key = load_pem_private_key(_bytes(file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise wrong_usage(f"{file} has no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise wrong_usage(f"{file} has another kind of key than Ed25519")
    return key


def _bytes(file: Path) -> bytes:
    try:
        return file.expanduser().read_bytes()
    except OSError as error:
        raise wrong_usage(f"{file} cannot be read: {error.strerror}") from error


def receipts_in(text: str, device: str) -> Iterator[pb.OnDeviceReceipt]:
    """Yield a receipt for each line of JSON: an OnDeviceReceipt, where `device` and the receipt's id may be left out.

    An id that is left out is worked out from device and sequence, so that the same line is the same receipt again.

    Raises:
        Failure: a line is none.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _receipt(line, number, device)


def _receipt(line: str, number: int, device: str) -> pb.OnDeviceReceipt:
    try:
        receipt = ParseDict(json.loads(line), pb.OnDeviceReceipt())
    except (ValueError, ParseError, AttributeError, TypeError) as error:
        raise wrong_usage(f"Line {number} is not a receipt in JSON: {error}") from error
    receipt.device = receipt.device or device
    if not receipt.device:
        raise _lacks(number, "device", "Name it in the line, or with --device.")
    if receipt.sequence < 1:
        raise _lacks(number, "sequence", "Number receipts from 1 on, and never use a number again.")
    if not receipt.HasField("started_at"):
        raise _lacks(number, "startedAt", "Say when the use began, such as 2026-11-21T09:30:00Z.")
    receipt.receipt_id = receipt.receipt_id or str(
        uuid5(NAMESPACE_URL, f"{receipt.device}/receipts/{receipt.sequence}")
    )
    return receipt


def _lacks(number: int, field: str, advice: str) -> Failure:
    return wrong_usage(f"Line {number} lacks {field}", advice)


def signed(receipt: pb.OnDeviceReceipt, key: Ed25519PrivateKey) -> pb.SignedReceipt:
    """Return a receipt with its signature."""
    encoded = receipt.SerializeToString(deterministic=True)
    return pb.SignedReceipt(receipt=encoded, signature=key.sign(SIGNED_PREFIX + encoded))
