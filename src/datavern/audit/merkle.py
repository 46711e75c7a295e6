"""The Merkle tree of RFC 6962, built at its right edge, with proofs that verify offline (RFC 9162 section 2.1).

Everything here works on leaf *hashes*: `leaf_hash` makes one of an entry's bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, Self

__all__ = [
    "EMPTY",
    "HASH",
    "Frontier",
    "Span",
    "leaf_hash",
    "node_hash",
    "split",
    "verify_consistency",
    "verify_inclusion",
]

HASH: Final = 32
"""Bytes of a hash."""
EMPTY: Final = sha256().digest()
"""The root of the empty tree."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf that holds `data`."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a tree: all that is needed to append to it, and to tell its root.

    Attributes:
        size: number of leaves.
    """

    __slots__ = ("_nodes", "size")

    def __init__(self) -> None:
        self.size = 0
        self._nodes: list[bytes] = []  # by height; what stands at a height whose bit is not set in `size` means nothing

    @classmethod
    def of(cls, size: int, data: bytes) -> Self:
        """Read what `bytes` wrote of a tree of that size.

        Raises:
            ValueError: the length does not fit the size.
        """
        if size < 0 or len(data) != HASH * size.bit_count():
            raise ValueError("the frontier does not fit the size")
        self = cls()
        self.size = size
        self._nodes = [b""] * size.bit_length()
        heights = (h for h in reversed(range(size.bit_length())) if size >> h & 1)
        for at, height in enumerate(heights):
            self._nodes[height] = data[at * HASH : (at + 1) * HASH]
        return self

    def __bytes__(self) -> bytes:
        """The roots of the perfect subtrees, the largest first."""
        return b"".join(node for _, _, node in self.subtrees())

    def subtrees(self) -> list[tuple[int, int, bytes]]:
        """First leaf, end and root of each perfect subtree, from left to right."""
        found = []
        first = 0
        for height in reversed(range(self.size.bit_length())):
            if self.size >> height & 1:
                found.append((first, first + (1 << height), self._nodes[height]))
                first += 1 << height
        return found

    def copy(self) -> Self:
        """One that grows on its own."""
        other = type(self)()
        other.size = self.size
        other._nodes = self._nodes.copy()  # noqa: SLF001  (its own kind)
        return other

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash: amortised O(1)."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Self:
        """Append leaf hashes: one node hash for each, level by level."""
        level = list(leaves)
        size, nodes, height = self.size, self._nodes, 0
        self.size += len(level)
        while level:
            if height == len(nodes):
                nodes.append(b"")
            if size >> height & 1:
                level.insert(0, nodes[height])
            if len(level) & 1:
                nodes[height] = level[-1]
            pairs = iter(level)
            level = [sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
            height += 1
        return self

    def root(self) -> bytes:
        """The tree's root: O(log n)."""
        root = None
        for height in range(self.size.bit_length()):
            if self.size >> height & 1:
                root = self._nodes[height] if root is None else node_hash(self._nodes[height], root)
        return EMPTY if root is None else root


class Span:
    """A tree of which the leaf hashes are known from `base.size` on, and only the frontier of what is before.

    Enough for the proof of each of those leaves, and for consistency with every tree from `base.size` on.

    Args:
        base: the frontier of the part before.
        leaves: the leaf hashes after it.
    """

    __slots__ = ("_leaves", "_start", "_subtrees", "size")

    def __init__(self, base: Frontier, leaves: Sequence[bytes]) -> None:
        self._start = base.size
        self._subtrees = {(first, end): node for first, end, node in base.subtrees()}
        self._leaves = leaves
        self.size = base.size + len(leaves)

    def inclusion(self, index: int) -> list[bytes]:
        """The audit path of leaf `index` (RFC 6962 section 2.1.1), from the leaf up.

        Raises:
            IndexError: the leaf is not among those known.
        """
        if not self._start <= index < self.size:
            raise IndexError("no such leaf in this span")
        path = []
        first, end = 0, self.size
        while end - first > 1:
            middle = first + split(end - first)
            if index < middle:
                path.append(self._node(middle, end))
                end = middle
            else:
                path.append(self._node(first, middle))
                first = middle
        return path[::-1]

    def consistency(self, old: int) -> list[bytes]:
        """The proof that the tree of `old` leaves is the beginning of this one (RFC 6962 section 2.1.2).

        Raises:
            IndexError: `old` is below what is known, or above the size.
        """
        if not self._start <= old <= self.size:
            raise IndexError("no such tree in this span")
        if old in {0, self.size}:
            return []
        path = []
        first, end, whole = 0, self.size, True
        while end != old:
            middle = first + split(end - first)
            if old <= middle:
                path.append(self._node(middle, end))
                end = middle
            else:
                path.append(self._node(first, middle))
                first = middle
                whole = False
        if not whole:
            path.append(self._node(first, end))
        return path[::-1]

    def _node(self, first: int, end: int) -> bytes:
        if first >= self._start:
            return Frontier().extend(self._leaves[first - self._start : end - self._start]).root()
        if end <= self._start:
            # A subtree beside the path that lies wholly before the leaves is perfect, and no larger perfect one before
            # them holds it: so it is one of the frontier's.
            return self._subtrees[first, end]
        middle = first + split(end - first)
        return node_hash(self._node(first, middle), self._node(middle, end))


def split(size: int) -> int:
    """The largest power of two below `size`: where RFC 6962 parts a tree."""
    return 1 << (size - 1).bit_length() - 1


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path leads from that leaf hash at that index to the root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and node == root


def verify_consistency(  # noqa: C901  (the RFC's algorithm, step by step)
    old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether the tree of `old` leaves is the beginning of that of `new` leaves (RFC 9162 section 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    if old == 0:
        return not path and old_root == EMPTY
    steps = list(path)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at >>= 1
        last >>= 1
    was = now = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            was = node_hash(sibling, was)
            now = node_hash(sibling, now)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            now = node_hash(now, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and was == old_root and now == new_root
