"""Bytes that were written once must verify for ever."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.entry import COLUMNS, canonical, leaf_hashes
from datavern.audit.merkle import Frontier, Span
from datavern.audit.offline import verify_export
from datavern.audit.proof import Proof
from datavern.audit.publishing import _file_name
from datavern.audit.truncation import Truncation
from datavern.contracts.errors import LogTampered

FOLDER = Path(__file__).parents[2] / "vectors"
VECTORS = json.loads((FOLDER / "audit-1.json").read_text(encoding="utf-8"))
RECORDS = json.loads((FOLDER / "audit-records-1.json").read_text(encoding="utf-8"))
ORIGIN = VECTORS["origin"]


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


@pytest.mark.parametrize("vector", RECORDS["records"], ids=lambda vector: vector["size"])
def test_the_record_of_what_was_removed(vector):
    found = Truncation.read(vector["note"], [VECTORS["verifier"]], origin=RECORDS["origin"])
    assert (found.size, found.root.hex()) == (vector["size"], vector["root"])
    with pytest.raises(LogTampered):
        Checkpoint.read(vector["note"])
    with pytest.raises(LogTampered):
        Truncation.read(VECTORS["checkpoints"][vector["size"]]["note"], [VECTORS["verifier"]], origin=ORIGIN)


@pytest.mark.parametrize("vector", RECORDS["exports"], ids=lambda vector: len(vector["lines"]))
def test_exports(vector):
    kept = "\n".join(checkpoint["note"] for checkpoint in VECTORS["checkpoints"])
    (answer,) = verify_export(map(json.dumps, vector["lines"]), VECTORS["verifier"], kept)
    assert answer.startswith(f"VALID: {ORIGIN}: 5 entries")
    assert "no kept" not in answer
    removed = [bytes.fromhex(entry["leaf"]) for entry in VECTORS["entries"]][: vector["lines"][0].get("truncated", 0)]
    assert bytes(Frontier().extend(removed)).hex() == vector["frontier"]


def test_the_names_of_what_is_published():
    assert _file_name(RECORDS["published"]["origin"]) == RECORDS["published"]["name"]
