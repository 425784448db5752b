"""Signatures by a key of Vault's transit engine, which never leaves Vault, for any number of documents at once.

Vault is asked by one caller at a time: the documents of all who wait meanwhile stand in the next tree and share its
signature. So a Vault that is slow makes trees large, and a thousand callers are not a thousand requests to it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from tollhouse_server.errors import TollhouseError, VaultUnavailable
from tollhouse_server.vault.client import Signature
from tollhouse_server.vault.merkle import leaf_hash, tree_over

ALGORITHM: Final = "Ed25519"

LARGEST_TREE: Final = 8192
"""Documents after which a tree takes nobody else in; who brings more has a tree of his own."""

_KEYS_FRESH_SECONDS: Final = 1.0


class Purpose(StrEnum):
    """What a signature is for, and the beginning of what is signed: one made for one thing is none for another."""

    RECEIPTS = "tollhouse.receipts/1"
    AUDIT = "tollhouse.audit-checkpoints/1"
    STATEMENTS = "tollhouse.statements/1"


class TransitVault(Protocol):
    """What of Vault is needed to sign."""

    async def sign(self, key: str, payload: bytes) -> Signature: ...

    async def public_keys(self, key: str) -> Mapping[int, bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A signature, and the way from one document to the root that was signed."""

    tree_size: int
    leaf_index: int
    path: tuple[bytes, ...]
    signature: Signature


@dataclass(slots=True, eq=False)
class _Wish:
    """What one caller wants signed, and what became of it."""

    leaves: Sequence[bytes]
    proofs: Sequence[Proof] | None = None
    error: TollhouseError | None = None

    @property
    def is_open(self) -> bool:
        return self.proofs is None and self.error is None


class SigningKey:
    """One key in Vault and what it signs for. Vault makes, rotates and keeps it; here it can only be used."""

    def __init__(
        self, vault: TransitVault, key: str, *, purpose: Purpose, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; asks Vault on the first call."""
        self.name = key
        self._vault = vault
        self._purpose = purpose
        self._clock = clock
        self._turn = asyncio.Lock()
        self._waiting: list[_Wish] = []
        self._reading = asyncio.Lock()
        self._public_keys: Mapping[int, bytes] = {}
        self._fresh_until = float("-inf")

    async def sign(self, documents: Sequence[bytes]) -> Sequence[Proof]:
        """Return a proof for each of the documents, at least one, in their order.

        Raises:
            VaultUnavailable: Vault is stopped, sealed or slow.
            VaultDenied: its policy does not let this role sign.
            SecretMissing: there is no such key.
        """
        wish = _Wish([leaf_hash(document) for document in documents])
        self._waiting.append(wish)
        try:
            async with self._turn:
                if wish.is_open:
                    await self._sign_waiting()
        finally:
            # Who goes before his turn wants nothing signed any more.
            self._waiting = [one for one in self._waiting if one is not wish]
        if wish.error is not None:
            raise wish.error
        return wish.proofs or ()

    async def public_keys(self) -> Mapping[int, bytes]:
        """Return the public keys of all versions; those read last while Vault does not answer: they stay true.

        Raises:
            VaultUnavailable: Vault does not answer, and nothing was read before.
            VaultDenied, SecretMissing: as `sign`.
        """
        async with self._reading:
            if self._clock() >= self._fresh_until:
                try:
                    self._public_keys = await self._vault.public_keys(self.name)
                except VaultUnavailable:
                    if not self._public_keys:
                        raise
                self._fresh_until = self._clock() + _KEYS_FRESH_SECONDS
            return self._public_keys

    async def _sign_waiting(self) -> None:
        """Sign for all who wait, or tell all of them why not; cancelled, it leaves them to the next in turn."""
        batch = list(_as_many_as_fit(self._waiting))
        try:
            proofs = iter(await self._prove([leaf for wish in batch for leaf in wish.leaves]))
        except TollhouseError as error:
            for wish in batch:
                wish.error = error
        else:
            for wish in batch:
                wish.proofs = [next(proofs) for _ in wish.leaves]
        self._waiting = [wish for wish in self._waiting if wish.is_open]

    async def _prove(self, leaves: Sequence[bytes]) -> Sequence[Proof]:
        tree, size = tree_over(leaves), len(leaves)
        signature = await self._vault.sign(self.name, signed_message(self._purpose, size, tree.root))
        if signature.key_version not in self._public_keys:
            # The key was rotated: whoever asks for the public ones next must be told of the new one.
            self._fresh_until = float("-inf")
        return [
            Proof(tree_size=size, leaf_index=index, path=tree.path(index), signature=signature) for index in range(size)
        ]


def signed_message(purpose: Purpose, tree_size: int, root: bytes) -> bytes:
    """Return the bytes that are signed for a tree."""
    return b"%s\n%s%s" % (purpose.encode(), tree_size.to_bytes(8, "big"), root)


def _as_many_as_fit(waiting: Sequence[_Wish]) -> Iterator[_Wish]:
    """Yield those that share the next tree, in their order; the first one whatever its size."""
    leaves = 0
    for wish in waiting:
        leaves += len(wish.leaves)
        if leaves > max(LARGEST_TREE, len(waiting[0].leaves)):
            return
        yield wish
