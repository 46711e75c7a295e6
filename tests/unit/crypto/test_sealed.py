"""Sealed rows: what opens, and everything that must not."""

from __future__ import annotations

import hashlib
import os
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.sealed import DataKey, RowSealer, new_row_tag, new_row_tags, retained_tag

SUBJECT = b"s" * 32
MESSAGE = str(DecryptionFailed())


def key(dataset: str = "users", subject: bytes | None = SUBJECT, *, key_id: bytes | None = None) -> DataKey:
    return DataKey(key_id or os.urandom(16), dataset, subject, os.urandom(32))


@pytest.fixture(params=[SUBJECT, None], ids=["subject key", "dataset key"])
def subject(request) -> bytes | None:
    return request.param


@pytest.fixture
def sealer() -> RowSealer:
    return RowSealer("users", ["name", "email"])


def refused(sealer: RowSealer, tag, row, keys, subject) -> None:
    """Refused in both ways of opening a row: by the names of its fields, and by their places."""
    placed = sealer.placed(enumerate(row))
    for opening in (
        lambda: sealer.open_row(tag, row, keys, subject),
        lambda: placed(tag, list(row.values()), keys, subject),
    ):
        with pytest.raises(DecryptionFailed) as caught:
            opening()
        assert str(caught.value) == MESSAGE
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None


def test_a_row_opens_again(sealer, subject):
    k, tag = key(subject=subject), new_row_tag()
    sealed = sealer.seal_row(k, tag, {"name": "Åse", "email": None})
    assert sealed["email"] is None
    assert b"\xc3\x85se" not in sealed["name"]
    assert len(sealed["name"]) == len("Åse".encode()) + (46 if subject else 58)
    assert sealed["name"][0] == (1 if subject else 2)
    assert sealer.key_ids(sealed) == {k.id}
    assert sealer.open_row(tag, sealed, {k.id: k}, subject) == {"name": "Åse", "email": None}


def test_what_a_row_lacks_or_does_not_seal_is_left_out(sealer):
    k, tag = key(), new_row_tag()
    assert sealer.seal_row(k, tag, {}) == {}
    sealed = sealer.seal_row(k, tag, {"name": "Åse", "id": 5})
    assert list(sealed) == ["name"]
    assert sealer.open_row(tag, {**sealed, "id": 5}, {k.id: k}, SUBJECT) == {"name": "Åse"}


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.binary() | st.booleans())
def test_values_of_any_type(value):
    sealer, k, tag = RowSealer("d", ["f"]), key("d"), new_row_tag()
    opened = sealer.open_row(tag, sealer.seal_row(k, tag, {"f": value}), {k.id: k}, SUBJECT)["f"]
    assert opened == value
    assert type(opened) is type(value)


def test_a_row_under_several_keys_opens(sealer):
    first, second, tag = key(), key(), new_row_tag()
    row = {**sealer.seal_row(first, tag, {"name": "a"}), **sealer.seal_row(second, tag, {"email": "b"})}
    assert sealer.key_ids(row) == {first.id, second.id}
    assert sealer.open_row(tag, row, {first.id: first, second.id: second}, SUBJECT) == {"name": "a", "email": "b"}


def test_every_nonce_is_new(sealer, subject):
    k, tag = key(subject=subject), new_row_tag()
    end = 17 + (12 if subject else 24)
    nonces = set()
    for _ in range(200):
        sealed = sealer.seal_row(k, tag, {"name": "a", "email": "a"})
        nonces |= {value[17:end] for value in sealed.values()}
    assert len(nonces) == 400


def test_a_batch_is_sealed_as_its_rows_are(sealer, subject):
    k, tags = key(subject=subject), new_row_tags(3)
    rows = [{"name": "Åse", "email": "a@b.no"}, {"name": None}, {"id": 5}]
    batch = sealer.seal_rows([(k, tag, row) for tag, row in zip(tags, rows, strict=True)])
    opened = [sealer.open_row(tag, row, {k.id: k}, subject) for tag, row in zip(tags, batch, strict=True)]
    assert opened == [{"name": "Åse", "email": "a@b.no"}, {"name": None}, {}]
    assert sealer.seal_rows([]) == []
    assert len(set(tags)) == 3
    assert {len(tag) for tag in tags} == {16}


def test_every_nonce_of_a_batch_is_new(subject):
    sealer = RowSealer("users", ["name", "email"])
    k, tag = key(subject=subject), new_row_tag()
    rows = [(k, tag, {"name": "a", "email": "a"})] * 100
    sealed = [value for row in sealer.seal_rows(rows) + sealer.seal_rows(rows) for value in row.values()]
    assert len({value[17 : 29 if subject else 41] for value in sealed}) == 400


def test_a_batch_with_a_row_that_cannot_be_sealed_is_refused(sealer):
    k, tag = key(), new_row_tag()
    with pytest.raises(ConfigurationError, match=r"users\.email: "):
        sealer.seal_rows([(k, tag, {"name": "a"}), (k, tag, {"email": object()})])


def test_another_row_column_person_or_dataset_is_refused(sealer, subject):
    k, tag = key(subject=subject), new_row_tag()
    sealed = sealer.seal_row(k, tag, {"name": "Åse", "email": "a@b.no"})
    keys = {k.id: k}
    refused(sealer, new_row_tag(), sealed, keys, subject)  # another row
    refused(sealer, tag, {"name": sealed["email"]}, keys, subject)  # another column
    refused(sealer, tag, {"name": sealed["name"], "email": sealed["name"]}, keys, subject)
    refused(sealer, tag, sealed, keys, b"o" * 32)  # another person
    refused(sealer, tag, sealed, keys, SUBJECT if subject is None else None)  # of nobody, or of somebody after all
    refused(RowSealer("staff", ["name", "email"]), tag, sealed, keys, subject)  # another dataset
    same_id = DataKey(k.id, "staff", subject, os.urandom(32))
    refused(RowSealer("staff", ["name"]), tag, {"name": sealed["name"]}, {k.id: same_id}, subject)


def test_the_same_key_under_another_name_is_refused(subject):
    """Nothing but the associated data tells these apart: the key and its id are the same."""
    raw, key_id, tag = os.urandom(32), os.urandom(16), new_row_tag()
    users, staff = (DataKey(key_id, dataset, subject, raw) for dataset in ("users", "staff"))
    sealed = RowSealer("users", ["name"]).seal_row(users, tag, {"name": "Åse"})
    refused(RowSealer("staff", ["name"]), tag, sealed, {key_id: staff}, subject)
    renamed = DataKey(os.urandom(16), "users", subject, raw)
    moved = {"name": sealed["name"][:1] + renamed.id + sealed["name"][17:]}
    refused(RowSealer("users", ["name"]), tag, moved, {renamed.id: renamed}, subject)


def test_names_do_not_run_together():
    """The dataset "ab" with the field "c" is not the dataset "a" with the field "bc"."""
    raw, key_id, tag = os.urandom(32), os.urandom(16), new_row_tag()
    one, other = (DataKey(key_id, dataset, SUBJECT, raw) for dataset in ("ab", "a"))
    sealed = RowSealer("ab", ["c"]).seal_row(one, tag, {"c": "x"})["c"]
    refused(RowSealer("a", ["bc"]), tag, {"bc": sealed}, {key_id: other}, SUBJECT)


def test_a_form_does_not_open_as_the_other():
    raw, key_id, tag, sealer = os.urandom(32), os.urandom(16), new_row_tag(), RowSealer("users", ["name"])
    subject, dataset = DataKey(key_id, "users", SUBJECT, raw), DataKey(key_id, "users", None, raw)
    of_subject, of_dataset = (sealer.seal_row(k, tag, {"name": "x" * 40})["name"] for k in (subject, dataset))
    refused(sealer, tag, {"name": of_subject}, {key_id: dataset}, None)
    refused(sealer, tag, {"name": of_dataset}, {key_id: subject}, SUBJECT)
    refused(sealer, tag, {"name": b"\x02" + of_subject[1:]}, {key_id: dataset}, None)
    refused(sealer, tag, {"name": b"\x01" + of_dataset[1:]}, {key_id: subject}, SUBJECT)


def test_every_changed_bit_is_refused(sealer, subject):
    k, tag = key(subject=subject), new_row_tag()
    sealed = sealer.seal_row(k, tag, {"name": "Åse"})["name"]
    for at in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[at] ^= 1 << bit
            refused(sealer, tag, {"name": bytes(changed)}, {k.id: k}, subject)


def test_every_length_but_its_own_is_refused(sealer, subject):
    k, tag = key(subject=subject), new_row_tag()
    sealed = sealer.seal_row(k, tag, {"name": "Åse"})["name"]
    for size in range(len(sealed)):
        refused(sealer, tag, {"name": sealed[:size]}, {k.id: k}, subject)
        refused(sealer, tag, {"name": sealed[size + 1 :]}, {k.id: k}, subject)
    refused(sealer, tag, {"name": sealed + b"\0"}, {k.id: k}, subject)


@pytest.mark.parametrize("value", ["plain text", 5, 1.5, [], {}, b"", bytes(17), bytes(100), ("t",)])
def test_what_was_never_sealed_is_refused(sealer, value):
    k = key(key_id=bytes(16))
    refused(sealer, new_row_tag(), {"name": value}, {k.id: k}, SUBJECT)
    sealer.key_ids({"name": value})  # says what it can, and raises nothing


def test_a_missing_key_and_a_wrong_row_tag_are_refused(sealer):
    k, tag = key(), new_row_tag()
    sealed = sealer.seal_row(k, tag, {"name": "Åse"})
    refused(sealer, tag, sealed, {}, SUBJECT)
    for wrong in (None, b"", tag[:15], tag + b"\0"):
        refused(sealer, wrong, sealed, {k.id: k}, SUBJECT)


def test_sealing_under_a_key_of_another_dataset_or_with_a_wrong_tag_is_refused(sealer):
    with pytest.raises(ConfigurationError, match="a key of this dataset"):
        sealer.seal_row(key("staff"), new_row_tag(), {"name": "a"})
    with pytest.raises(ConfigurationError, match="16 bytes"):
        sealer.seal_row(key(), b"short", {"name": "a"})


@pytest.mark.parametrize("value", ["13097248022 \ud800", {"13097248022"}, ["13097248022", float("inf")]])
def test_a_value_that_cannot_be_sealed_is_named_by_its_field_alone(sealer, value):
    with pytest.raises(ConfigurationError, match=r"users\.email: ") as caught:
        sealer.seal_row(key(), new_row_tag(), {"name": "a", "email": value})
    assert "13097248022" not in "".join(traceback.format_exception(caught.value))


def test_a_key_shows_nothing_of_itself():
    raw = b"\xabKEYKEYKEYKEYKEYKEYKEYKEYKEYKEY\xcd"
    k = DataKey(bytes(16), "users", SUBJECT, raw)
    assert "KEY" not in repr(k)
    assert raw.hex() not in repr(k)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(k)
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            DataKey(bytes(16), "users", SUBJECT, bytes(size))


def test_the_tag_of_a_retained_row_is_the_format_s():
    tag = retained_tag(bytes(range(16)), SUBJECT)
    assert tag == hashlib.sha256(b"retained\0" + bytes(range(16)) + SUBJECT).digest()[:16]
    assert retained_tag(bytes(range(16)), b"t" * 32) != tag
