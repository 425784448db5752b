"""One signature for many documents: the tree, and who shares it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.errors import VaultUnavailable
from tollhouse_server.vault.client import Signature
from tollhouse_server.vault.merkle import leaf_hash, tree_over
from tollhouse_server.vault.signing import LARGEST_TREE, Proof, Purpose, SigningKey, signed_message

# RFC 6962's reference tree (certificate-transparency's own test vectors): eight inputs, the roots of all prefixes.
INPUTS = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
INPUTS.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@dataclass(slots=True)
class SlowVault:
    """A transit engine that answers when it is told to, or fails."""

    payloads: list[bytes] = field(default_factory=list)
    reads: int = 0
    is_down: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def sign(self, key: str, payload: bytes) -> Signature:
        self.payloads.append(payload)
        await self.may_answer.wait()
        if self.is_down:
            raise VaultUnavailable(detail="sealed")
        return Signature(key=key, key_version=1, value=b"signature of " + payload)

    async def public_keys(self, key: str) -> Mapping[int, bytes]:
        assert key == "receipts"
        self.reads += 1
        if self.is_down:
            raise VaultUnavailable(detail="sealed")
        return {1: b"public"}


@pytest.fixture
def vault() -> SlowVault:
    return SlowVault()


@pytest.fixture
def key(vault: SlowVault) -> SigningKey:
    return SigningKey(vault, "receipts", purpose=Purpose.RECEIPTS)


def root_of(document: bytes, proof: Proof) -> bytes:
    """Walk from a document to the root as RFC 9162, 2.1.3.2 has it: written apart from the code under test."""
    found, node, last = leaf_hash(document), proof.leaf_index, proof.tree_size - 1
    for sibling in proof.path:
        assert last > 0
        if node & 1 or node == last:
            found = tree_over_nodes(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = tree_over_nodes(found, sibling)
        node, last = node >> 1, last >> 1
    assert last == 0
    return found


def tree_over_nodes(left: bytes, right: bytes) -> bytes:
    return tree_over([left, right]).root


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def proofs_of(key: SigningKey, vault: SlowVault, documents: Sequence[bytes]) -> Sequence[Proof]:
    vault.may_answer.set()
    return await key.sign(documents)


@pytest.mark.parametrize("size", range(1, 9))
def test_the_root_is_that_of_certificate_transparency(size: int) -> None:
    """A known tree, so that any tool that knows it can check a receipt."""
    assert tree_over(map(leaf_hash, INPUTS[:size])).root.hex() == ROOTS[size - 1]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70))
def test_every_document_has_a_way_to_the_root_that_was_signed(documents: list[bytes]) -> None:
    """For any number of documents, equal ones included."""
    vault = SlowVault()

    proofs = asyncio.run(proofs_of(SigningKey(vault, "receipts", purpose=Purpose.RECEIPTS), vault, documents))

    roots = {root_of(document, proof) for document, proof in zip(documents, proofs, strict=True)}
    assert {signed_message(Purpose.RECEIPTS, len(documents), root) for root in roots} == set(vault.payloads)
    assert [proof.leaf_index for proof in proofs] == list(range(len(documents)))


def test_what_is_signed_says_what_for_and_of_how_many() -> None:
    """A signature for one purpose, or of another tree, is none for this one."""
    assert signed_message(Purpose.RECEIPTS, 3, b"root") == b"tollhouse.receipts/1\n\0\0\0\0\0\0\0\3root"


async def test_who_waits_while_vault_is_asked_shares_the_next_signature(key: SigningKey, vault: SlowVault) -> None:
    """A hundred callers are two requests to Vault, not a hundred."""
    async with asyncio.TaskGroup() as callers:
        tasks = [callers.create_task(key.sign([b"%d" % number])) for number in range(100)]
        await settle()
        vault.may_answer.set()

    proofs = [task.result()[0] for task in tasks]
    assert len(vault.payloads) == 2
    assert [proof.tree_size for proof in proofs] == [1] + [99] * 99
    for number, proof in enumerate(proofs):
        payload = signed_message(Purpose.RECEIPTS, proof.tree_size, root_of(b"%d" % number, proof))
        assert proof.signature.value == b"signature of " + payload


async def test_all_who_wait_hear_at_once_that_vault_is_down(key: SigningKey, vault: SlowVault) -> None:
    """Nobody waits for Vault's silence once more in his turn."""
    vault.is_down = True
    waiting = [asyncio.ensure_future(key.sign([b"document"])) for _ in range(50)]
    await settle()
    vault.may_answer.set()

    errors = await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(error) for error in errors} == {VaultUnavailable}
    assert len(vault.payloads) == 2


async def test_who_hangs_up_takes_nobody_with_him(key: SigningKey, vault: SlowVault) -> None:
    """The one whose turn it is leaves, and one who waits: the others get their signatures, for what is left."""
    waiting = [asyncio.ensure_future(key.sign([b"%d" % number])) for number in range(4)]
    await settle()
    waiting[0].cancel()
    waiting[2].cancel()
    await settle()
    vault.may_answer.set()

    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False, True, False]
    assert root_of(b"3", results[3][0])  # type: ignore[index]
    assert results[3][0].tree_size == 2  # type: ignore[index]


async def test_a_tree_has_an_end(key: SigningKey, vault: SlowVault) -> None:
    """Who would make it too large has the next one; who is too large alone has his own."""
    many = [b"%d" % number for number in range(LARGEST_TREE // 2)]
    async with asyncio.TaskGroup() as callers:
        first = callers.create_task(key.sign([b"first"]))
        await settle()
        tasks = [callers.create_task(key.sign(documents)) for documents in (many, many, [b"one"], many * 3)]
        await settle()
        vault.may_answer.set()

    assert first.result()[0].tree_size == 1
    assert [task.result()[0].tree_size for task in tasks] == [LARGEST_TREE, LARGEST_TREE, 1, len(many) * 3]


async def test_public_keys_stay_true_while_vault_is_down(vault: SlowVault) -> None:
    """They are read anew every second at the most; without Vault the last ones hold."""
    now = [0.0]
    key = SigningKey(vault, "receipts", purpose=Purpose.RECEIPTS, clock=lambda: now[0])
    vault.is_down = True
    with pytest.raises(VaultUnavailable):
        await key.public_keys()
    vault.is_down = False
    known = await key.public_keys()
    again = await key.public_keys()

    vault.is_down, now[0] = True, 5.0

    assert await key.public_keys() == again == known == {1: b"public"}
    assert vault.reads == 3
