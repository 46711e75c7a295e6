"""Released bytes of values, documents and streams: they open for ever (tests/vectors/make_sealed.py wrote them)."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from datavern.contracts.errors import DecryptionFailed
from datavern.crypto import lookup
from datavern.crypto.documents import DocumentSealer, Labels
from datavern.crypto.key_rows import data_context, derived
from datavern.crypto.keyring import Keyring
from datavern.crypto.sealed import DataKey, RowSealer, retained_tag
from datavern.crypto.sealed_values import ValueSealer, sealed_at
from datavern.crypto.segments import SEGMENT, TAG, StreamOpener, _Segments, plain_length

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "sealed-1.json").read_text(encoding="utf-8"))
KEY, KEY_ID, ROW_TAG, SUBJECT = (bytes.fromhex(VECTORS[n]) for n in ("key", "key_id", "row_tag", "subject_tag"))


def tag_of(vector):
    return SUBJECT if vector["form"] % 2 else None


def labels_of(vector, identity):
    return Labels(
        classification="CONFIDENTIAL",
        location="norway",
        created_at=VECTORS["moment"],
        created_by=vector.get("created_by"),
        subject_tag=tag_of(vector),
        identity=identity,
    )


def test_a_row_that_the_law_keeps():
    vector = VECTORS["retained"]
    tag = retained_tag(ROW_TAG, SUBJECT)
    assert tag.hex() == vector["tag"]
    key = DataKey(KEY_ID, vector["dataset"], None, KEY)
    row = {vector["field"]: bytes.fromhex(vector["bytes"])}
    sealer = RowSealer(vector["dataset"], row)
    assert sealer.open_row(tag, row, {KEY_ID: key}, None) == {vector["field"]: vector["value"]}
    with pytest.raises(DecryptionFailed):
        sealer.open_row(ROW_TAG, row, {KEY_ID: key}, None)


def test_beginnings_and_parts():
    vector = VECTORS["parts"]
    of = lookup.prefix_indexer(KEY, vector["field"], vector["n"], vector["kind"])
    assert of(vector["value"]).hex() == vector["beginning"]
    normal = lookup.normalised_part(vector["kind"], vector["value"])
    assert " ".join(lookup.grams(KEY, vector["field"], vector["n"], normal)) == vector["parts"]


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda vector: f"{vector['role']} {vector['form']}")
def test_values_without_a_row(vector):
    sealed, name, part = bytes.fromhex(vector["bytes"]), vector["name"].encode(), vector["part"].encode()
    key = DataKey(KEY_ID, "sessions", tag_of(vector), KEY)
    assert ValueSealer("sessions", vector["role"]).open(key, name, sealed, part) == {"user": "Åse"}
    assert sealed_at(sealed) == VECTORS["moment"]
    for wrong in (
        ("other", vector["role"], name),
        ("sessions", "other", name),
        ("sessions", vector["role"], name + b"x"),
    ):
        with pytest.raises(DecryptionFailed):
            ValueSealer(*wrong[:2]).open(DataKey(KEY_ID, wrong[0], tag_of(vector), KEY), wrong[2], sealed, part)


@pytest.mark.parametrize("vector", VECTORS["documents"], ids=lambda vector: f"{vector['form']} {vector['created_by']}")
def test_documents(vector):
    key, sealed = DataKey(KEY_ID, "cases", tag_of(vector), KEY), bytes.fromhex(vector["bytes"])
    labels = labels_of(vector, bytes.fromhex(vector["identity"]))
    assert DocumentSealer("cases").open(key, labels, sealed) == b"the body in its own encoding"
    with pytest.raises(DecryptionFailed):
        DocumentSealer("cases").open(key, labels_of(vector, b"another"), sealed)


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda vector: f"{vector['form']} {vector['length']}")
def test_streams(vector):
    length, header = vector["length"], bytes.fromhex(vector["header"])
    plain = b"".join(sha256(n.to_bytes(4, "big")).digest() for n in range(length // 32 + 1))[:length]
    segments = _Segments(bytes.fromhex(VECTORS["stream_key"]))
    cut = [plain[at : at + SEGMENT] for at in range(0, length, SEGMENT)] or [b""]
    whole = header + b"".join([segments.seal(one, b"\0") for one in cut[:-1]] + [segments.seal(cut[-1], b"\1")])
    assert sha256(whole).hexdigest() == vector["sha256"]
    assert vector.get("bytes", whole.hex()) == whole.hex()
    assert plain_length(vector["form"], len(whole)) == length
    for step in (len(whole), 100_000):
        opener = StreamOpener("files", labels_of(vector, b"a file"))
        opener.begin(DataKey(KEY_ID, "files", tag_of(vector), KEY), whole[:step])
        found = opener.update() + b"".join(opener.update(whole[at : at + step]) for at in range(step, len(whole), step))
        assert found + opener.finish() == plain
    opener = StreamOpener("files", labels_of(vector, b"a file"))
    with pytest.raises(DecryptionFailed):
        opener.begin(DataKey(KEY_ID, "files", tag_of(vector), KEY), whole[: len(whole) - TAG - 1])
        opener.update()
        opener.finish()


async def test_the_keys_of_mongodb_s_own_format(tmp_path):
    expected = VECTORS["mongodb"]
    async with await Keyring.create(f"file:{tmp_path / 'keys'}") as ring:
        wrapped = await ring.wrap(KEY, data_context("people/name", SUBJECT, KEY_ID))
        made = await derived(ring, "people/name", SUBJECT, KEY_ID, wrapped, purpose=expected["purpose"], length=96)
    assert made.hex() == expected["material"]
