from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.audit.merkle import (
    EMPTY,
    Frontier,
    Span,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

RFC_LEAVES = [
    bytes.fromhex(h)
    for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
RFC_ROOT = bytes.fromhex("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")
# Roots of the first n leaves, and proofs: the vectors that the certificate transparency implementations share.
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


def naive_root(hashes):
    """RFC 6962 section 2.1, to the letter."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else EMPTY
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(naive_root(hashes[:k]), naive_root(hashes[k:]))


def naive_path(m, hashes):
    """RFC 6962 section 2.1.1."""
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m < k:
        return [*naive_path(m, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(m - k, hashes[k:]), naive_root(hashes[:k])]


def naive_proof(m, hashes, whole=True):
    """RFC 6962 section 2.1.2."""
    if m == len(hashes):
        return [] if whole else [naive_root(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m <= k:
        return [*naive_proof(m, hashes[:k], whole), naive_root(hashes[k:])]
    return [*naive_proof(m - k, hashes[k:], False), naive_root(hashes[:k])]


def leaves(n):
    return [leaf_hash(i.to_bytes(4, "big")) for i in range(n)]


def test_published_vectors():
    assert Frontier().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    frontier = Frontier()
    for leaf, root in zip(RFC_LEAVES, ROOTS, strict=True):
        frontier.append(leaf_hash(leaf))
        assert frontier.root().hex() == root
    assert frontier.root() == RFC_ROOT
    assert Frontier().extend(map(leaf_hash, RFC_LEAVES)).root() == RFC_ROOT


def test_published_paths():
    span = Span(Frontier(), [leaf_hash(leaf) for leaf in RFC_LEAVES])
    assert [h.hex() for h in span.inclusion(0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [h.hex() for h in span.consistency(6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.lists(st.integers(0, 40), max_size=8))
def test_pieces_of_any_size_make_the_same_tree(pieces):
    hashes = leaves(sum(pieces))
    frontier = Frontier()
    for piece in pieces:
        start = frontier.size
        frontier.extend(hashes[start : start + piece])
        assert frontier.root() == naive_root(hashes[: frontier.size])
    restored = Frontier.of(frontier.size, bytes(frontier))
    assert restored.root() == frontier.root()
    more = leaves(5)
    before = frontier.root()
    assert frontier.copy().extend(more).root() == restored.extend(more).root() == naive_root(hashes + more)
    assert frontier.root() == before


@given(st.data())
def test_proofs_are_those_of_the_recursion_and_verify(data):
    size = data.draw(st.integers(1, 80))
    base = data.draw(st.integers(0, size))
    hashes = leaves(size)
    root = naive_root(hashes)
    span = Span(Frontier().extend(hashes[:base]), hashes[base:])
    assert span.size == size
    if base < size:
        index = data.draw(st.integers(base, size - 1))
        path = span.inclusion(index)
        assert path == naive_path(index, hashes)
        assert verify_inclusion(hashes[index], index, size, path, root)
    old = data.draw(st.integers(base, size))
    proof = span.consistency(old)
    assert proof == ([] if old == 0 else naive_proof(old, hashes))
    assert verify_consistency(old, size, naive_root(hashes[:old]), root, proof)


@given(st.data())
def test_a_proof_that_is_not_right_does_not_verify(data):
    size = data.draw(st.integers(2, 60))
    hashes = leaves(size)
    root = naive_root(hashes)
    index = data.draw(st.integers(0, size - 1))
    path = Span(Frontier(), hashes).inclusion(index)
    leaf = hashes[index]
    wrong = sha256(b"wrong").digest()
    at = data.draw(st.integers(0, len(path) - 1))
    assert not verify_inclusion(wrong, index, size, path, root)
    assert not verify_inclusion(leaf, index, size, path, wrong)
    assert not verify_inclusion(leaf, index, size, path[:-1], root)
    assert not verify_inclusion(leaf, index, size, [*path, wrong], root)
    assert not verify_inclusion(leaf, index, size, [*path[:at], wrong, *path[at + 1 :]], root)
    other = data.draw(st.integers(-1, size).filter(lambda i: i != index))
    assert not verify_inclusion(leaf, other, size, path, root)


@given(st.data())
def test_a_consistency_proof_that_is_not_right_does_not_verify(data):
    size = data.draw(st.integers(2, 60))
    old = data.draw(st.integers(1, size - 1))
    hashes = leaves(size)
    root, was = naive_root(hashes), naive_root(hashes[:old])
    proof = Span(Frontier(), hashes).consistency(old)
    wrong = sha256(b"wrong").digest()
    at = data.draw(st.integers(0, len(proof) - 1))
    assert not verify_consistency(old, size, wrong, root, proof)
    assert not verify_consistency(old, size, was, wrong, proof)
    assert not verify_consistency(old, size, was, root, proof[:-1])
    assert not verify_consistency(old, size, was, root, [*proof, wrong])
    assert not verify_consistency(old, size, was, root, [*proof[:at], wrong, *proof[at + 1 :]])
    assert not verify_consistency(size, old, root, was, proof)
    assert not verify_consistency(old, 4 * size, was, root, proof)  # a size that has a longer path
    assert not verify_consistency(size, size, was, root, [])
    assert not verify_consistency(0, size, was, root, [])


@pytest.mark.parametrize(("size", "data"), [(3, b"x" * 32), (0, b"x" * 32), (-1, b""), (1, b"x" * 31)])
def test_a_frontier_that_does_not_fit(size, data):
    with pytest.raises(ValueError, match="does not fit"):
        Frontier.of(size, data)


@pytest.mark.parametrize("index", [1, 5, -1])
def test_a_span_knows_its_own_leaves_only(index):
    hashes = leaves(5)
    span = Span(Frontier().extend(hashes[:2]), hashes[2:])
    with pytest.raises(IndexError):
        span.inclusion(index)
    with pytest.raises(IndexError):
        span.consistency(6 if index == 5 else index)
