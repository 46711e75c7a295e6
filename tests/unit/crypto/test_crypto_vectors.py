"""The released bytes open, and are what is written today (tests/vectors/make_crypto.py wrote them without our code)."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from datavern.crypto import encoding, lookup, signing
from datavern.crypto.key_rows import slot
from datavern.crypto.keyed import keyed_hash
from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.crypto.notes import open_note
from datavern.crypto.sealed import DataKey, RowSealer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "crypto-1.json").read_text(encoding="utf-8"))
KEY, KEY_ID, ROW_TAG, SUBJECT = (bytes.fromhex(VECTORS[n]) for n in ("key", "key_id", "row_tag", "subject_tag"))

READ = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: text == "True",
    "bytes": bytes.fromhex,
    "date": dt.date.fromisoformat,
    "datetime": dt.datetime.fromisoformat,
    "time": dt.time.fromisoformat,
    "Decimal": Decimal,
    "UUID": UUID,
    "json": json.loads,
}


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda vector: f"{vector['type']} {vector['text']}")
def test_values(vector):
    value, raw = READ[vector["type"]](vector["text"]), bytes.fromhex(vector["encoded"])
    assert encoding.encode(value) == raw
    back = encoding.decode(raw)
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize("vector", VECTORS["sealed"], ids=lambda vector: f"form {vector['form']} {vector['encoded']}")
def test_sealed(vector):
    subject = SUBJECT if vector["form"] == 1 else None
    key = DataKey(KEY_ID, VECTORS["dataset"], subject, KEY)
    sealer = RowSealer(VECTORS["dataset"], [VECTORS["field"]])
    opened = sealer.open_row(ROW_TAG, {VECTORS["field"]: bytes.fromhex(vector["bytes"])}, {KEY_ID: key}, subject)
    assert encoding.encode(opened[VECTORS["field"]]).hex() == vector["encoded"]


@pytest.mark.parametrize("vector", VECTORS["lookup"], ids=lambda vector: f"{vector['kind']} {vector['value']}")
def test_lookup(vector):
    assert lookup.index(KEY, "email", vector["value"], vector["kind"]).hex() == vector["index"]


@pytest.mark.parametrize("vector", VECTORS["slots"])
def test_slots(vector):
    assert slot("users", bytes.fromhex(vector["subject_tag"]) or None).hex() == vector["slot"]


@pytest.fixture
async def ring(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(0o700)
    for name, text in VECTORS["ring"].items():
        (folder / name).touch(0o600)
        (folder / name).write_text(text, encoding="utf-8")
    async with Keyring.from_url(f"file:{folder}") as ring:
        yield ring


async def test_the_ring_and_what_it_wrapped(ring):
    for vector in VECTORS["wrapped"]:
        key = await ring.unwrap(bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["context"]))
        assert key.hex() == vector["key"]


async def test_subject_tags(ring):
    store = KeyStore(ring, None)  # a tag needs the tag key alone
    store._tag = keyed_hash(KEY, b"subject\x00")
    for vector in VECTORS["subject_tags"]:
        assert store.subject_tag(vector["subject"]).hex() == vector["tag"]


async def test_signatures(ring):
    vector = VECTORS["signatures"]
    assert ring.signer.verifier == vector["verifier"]
    assert ring.signer.sign_note(vector["text"]) == vector["note"]
    assert open_note(vector["note"], [vector["verifier"]]) == vector["text"]
    data, plain = bytes.fromhex(vector["data"]), bytes.fromhex(vector["plain"])
    assert ring.signer.sign(data) == plain
    assert signing.verify(vector["verifier"], data, plain)


def test_the_generator_writes_nothing_over(tmp_path):
    import runpy

    target = Path(__file__).parents[2] / "vectors" / "crypto-1.json"
    before = target.read_bytes()
    with pytest.raises(SystemExit, match="never written again"):
        runpy.run_path(str(target.with_name("make_crypto.py")), run_name="__main__")
    assert target.read_bytes() == before
