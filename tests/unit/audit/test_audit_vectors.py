"""Bytes that were written once must verify for ever."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.entry import COLUMNS, canonical, leaf_hashes
from datavern.audit.merkle import Frontier, Span
from datavern.audit.proof import Proof

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "audit-1.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["entries"])
def test_entries(vector):
    row = [vector["columns"][name] for name in COLUMNS]
    data = bytes.fromhex(vector["canonical"])
    assert canonical(row) == data
    assert sha256(b"\0" + data).hexdigest() == vector["leaf"]
    assert [leaf.hex() for leaf in leaf_hashes([row])] == [vector["leaf"]]
    assert data[0] == 1
    assert json.loads(data[1:]) == row


@pytest.mark.parametrize("vector", VECTORS["checkpoints"])
def test_checkpoints(vector):
    checkpoint = Checkpoint.read(vector["note"]).verified([VECTORS["verifier"]], origin=VECTORS["origin"])
    assert (checkpoint.size, checkpoint.root.hex()) == (vector["size"], vector["root"])
    leaves = [bytes.fromhex(entry["leaf"]) for entry in VECTORS["entries"][: checkpoint.size]]
    assert Frontier().extend(leaves).root() == checkpoint.root


@pytest.mark.parametrize("vector", VECTORS["proofs"])
def test_the_same_paths_are_made(vector):
    leaves = [
        bytes.fromhex(entry["leaf"]) for entry in VECTORS["entries"][: Checkpoint.read(vector["checkpoint"]).size]
    ]
    path = Span(Frontier(), leaves).inclusion(vector["position"])
    assert list(Proof.from_json(json.dumps(vector)).path) == path


@pytest.mark.parametrize("vector", VECTORS["proofs"])
def test_proofs(vector):
    proof = Proof.from_json(json.dumps(vector))
    assert proof.verify(VECTORS["verifier"]).size > proof.position
    assert json.loads(proof.to_json()) == vector
