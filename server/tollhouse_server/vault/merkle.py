"""Hash trees over documents: one signature of the root is one for each document. The tree is that of RFC 9162, 2.1.

A leaf's hash and a node's begin with different bytes, so that no document can be passed off as a node.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def leaf_hash(document: bytes) -> bytes:
    """Return the hash under which a document stands in a tree."""
    return hashlib.sha256(_LEAF + document).digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """The hashes of every level, the leaves first and the root last; one without a sibling goes up as it is."""

    levels: tuple[tuple[bytes, ...], ...]

    @property
    def root(self) -> bytes:
        """Return the hash that stands for all documents and their order."""
        return self.levels[-1][0]

    def path(self, index: int) -> tuple[bytes, ...]:
        """Return the hashes that lead from the leaf at `index` to the root, from the bottom up."""
        places = ((level, (index >> height) ^ 1) for height, level in enumerate(self.levels[:-1]))
        return tuple(level[sibling] for level, sibling in places if sibling < len(level))


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root to which a path leads from the leaf at `index` of `size`, None where it leads nowhere."""
    if not 0 <= index < size:
        return None
    found, left = leaf, list(path)
    while size > 1:
        if index % 2 or index + 1 < size:
            if not left:
                return None
            sibling = left.pop(0)
            (found,) = _above((sibling, found) if index % 2 else (found, sibling))
        index, size = index // 2, (size + 1) // 2
    return None if left else found


def tree_over(leaves: Iterable[bytes]) -> Tree:
    """Return the tree over hashes of documents, of which there is at least one."""
    levels = [tuple(leaves)]
    while len(levels[-1]) > 1:
        levels.append(_above(levels[-1]))
    return Tree(tuple(levels))


def _above(level: Sequence[bytes]) -> tuple[bytes, ...]:
    pairs = zip(level[::2], level[1::2], strict=False)
    nodes = tuple(hashlib.sha256(_NODE + left + right).digest() for left, right in pairs)
    return nodes + tuple(level[len(nodes) * 2 :])
