"""Devices as they are in the field: a private key, a counter, and receipts signed with it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tollhouse.v1 import devices_pb2 as pb

PREFIX = b"tollhouse.v1.OnDeviceReceipt\0"


@dataclass(slots=True)
class FieldDevice:
    """A device that signs receipts; `name` is its resource name."""

    name: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sequence: int = 0

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return self.key.public_key().public_bytes_raw()

    def receipt(self, **fields: Any) -> pb.OnDeviceReceipt:
        """Return the next receipt: one request of 100 tokens in and 10 out, now, unless said otherwise."""
        self.sequence += 1
        defaults: dict[str, Any] = {
            "device": self.name,
            "receipt_id": str(uuid4()),
            "sequence": self.sequence,
            "started_at": datetime.now(UTC),
            "model": "gemini-nano-v3",
            "input_tokens": 100,
            "output_tokens": 10,
            "requests": 1,
        }
        return pb.OnDeviceReceipt(**defaults | fields)

    def sign(self, receipt: pb.OnDeviceReceipt, *, prefix: bytes = PREFIX) -> pb.SignedReceipt:
        """Return a receipt with this device's signature."""
        encoded = receipt.SerializeToString()
        return pb.SignedReceipt(receipt=encoded, signature=self.key.sign(prefix + encoded))

    def signed(self, **fields: Any) -> pb.SignedReceipt:
        """Return the next receipt, signed."""
        return self.sign(self.receipt(**fields))
