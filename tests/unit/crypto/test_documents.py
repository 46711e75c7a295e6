"""Sealed documents and streams: they open as they were sealed, and in no other way."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto import segments
from datavern.crypto.documents import DocumentSealer, Labels
from datavern.crypto.sealed import DataKey
from datavern.crypto.segments import SEGMENT, TAG, StreamOpener, StreamSealer, plain_length

TAG_A, TAG_B = b"a" * 32, b"b" * 32
PERSON = DataKey(b"k" * 16, "cases", TAG_A, b"s" * 32)
NOBODY = DataKey(b"n" * 16, "cases", None, b"d" * 32)
WITH = {PERSON: TAG_A, NOBODY: None}


def labels(tag=TAG_A, **changes):
    return Labels(
        **{
            "classification": "SECRET",
            "location": "norway",
            "created_at": 1_795_403_811_352,
            "created_by": "case-worker-7",
            "subject_tag": tag,
            "identity": b"\x10\x00\x00\x00\x07\x00\x01",
            **changes,
        }
    )


@pytest.mark.parametrize("key", [PERSON, NOBODY])
def test_a_document_opens_as_it_was_sealed(key):
    sealer = DocumentSealer("cases")
    sealed = sealer.seal(key, labels(WITH[key]).bytes, b"the body")
    assert sealed[0] == (5 if key is PERSON else 6)
    assert sealer.key_id(sealed) == key.id
    assert b"the body" not in sealed
    assert sealer.open(key, labels(WITH[key]), sealed) == b"the body"
    assert sealed != sealer.seal(key, labels(WITH[key]).bytes, b"the body")


@pytest.mark.parametrize(
    "changes",
    [
        {"classification": "OPEN"},
        {"location": "eu"},
        {"created_at": 1_795_403_811_353},
        {"created_by": None},
        {"created_by": "case-worker-8"},
        {"identity": b"\x10\x00\x00\x00\x08\x00\x01"},
    ],
)
def test_a_document_does_not_open_with_another_label(changes):
    sealed = DocumentSealer("cases").seal(PERSON, labels().bytes, b"the body")
    with pytest.raises(DecryptionFailed):
        DocumentSealer("cases").open(PERSON, labels(**changes), sealed)


def test_a_document_does_not_open_for_another_person_or_dataset_or_form():
    sealer = DocumentSealer("cases")
    sealed = sealer.seal(PERSON, labels().bytes, b"the body")
    other = DataKey(b"k" * 16, "cases", TAG_B, b"s" * 32)
    elsewhere = DataKey(b"k" * 16, "files", TAG_A, b"s" * 32)
    for key, tag in ((other, TAG_B), (other, TAG_A), (elsewhere, TAG_A), (NOBODY, None)):
        with pytest.raises(DecryptionFailed):
            sealer.open(key, labels(tag), sealed)
    with pytest.raises(DecryptionFailed):
        DocumentSealer("files").open(elsewhere, labels(), sealed)
    with pytest.raises(ConfigurationError):
        sealer.seal(elsewhere, labels().bytes, b"")
    with pytest.raises(ConfigurationError):
        StreamSealer("cases", PERSON, labels(TAG_B))


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(position, change):
    sealer = DocumentSealer("cases")
    sealed = bytearray(sealer.seal(PERSON, labels().bytes, b"the body"))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(DecryptionFailed):
        sealer.open(PERSON, labels(), bytes(sealed))


def test_half_a_nonce_is_kept_for_a_while_and_never_a_whole_one(monkeypatch):
    monkeypatch.setattr("datavern.crypto.documents._PER_HALF", 3)
    sealer = DocumentSealer("cases")
    other = DataKey(b"m" * 16, "cases", None, b"d" * 32)
    sealed = [sealer.seal(key, labels(None).bytes, b"body") for key in [NOBODY] * 7 + [other, NOBODY]]
    halves = [one[17:29] for one in sealed]
    assert [halves.count(half) for half in dict.fromkeys(halves)] == [3, 3, 1, 1, 1]
    assert len({one[17:41] for one in sealed}) == 9
    for one in sealed:
        assert sealer.open(other if one[1:17] == other.id else NOBODY, labels(None), one) == b"body"


@pytest.mark.parametrize("raw", [b"", b"\x05", b"\x05" + b"k" * 16, b"\x01" + b"k" * 40, b"\x07" + b"k" * 40])
def test_what_is_no_sealed_body_names_no_key(raw):
    with pytest.raises(DecryptionFailed):
        DocumentSealer.key_id(raw)


# ---- streams --------------------------------------------------------------------------------------------------------


def seal(data, key=PERSON, step=10_007):
    stream = StreamSealer("fs.files", *at(key))
    out = [stream.header]
    out.extend(stream.update(data[i : i + step]) for i in range(0, len(data), step))
    return b"".join([*out, stream.finish()])


def at(key):
    key = DataKey(key.id, "fs.files", key.subject_tag, b"f" * 32)
    return key, labels(key.subject_tag)


def open_(sealed, key=PERSON, step=9_001, **changes):
    key, _ = at(key)
    opener = StreamOpener("fs.files", labels(key.subject_tag, **changes))
    opener.begin(key, sealed[:1000])
    out = [opener.update(sealed[i : i + step]) for i in range(1000, len(sealed), step)]
    return b"".join([*out, opener.finish()])


SIZES = [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT + 17]


@pytest.mark.parametrize("key", [PERSON, NOBODY])
@pytest.mark.parametrize("size", SIZES)
def test_a_stream_opens_as_it_was_sealed(key, size):
    data = os.urandom(size)
    sealed = seal(data, key)
    assert sealed[0] == (7 if key is PERSON else 8)
    assert StreamOpener.key_id(sealed) == key.id
    assert plain_length(sealed[0], len(sealed)) == size
    assert open_(sealed, key) == data


@given(st.lists(st.integers(0, 2 * SEGMENT), max_size=5), st.sampled_from([bytes, bytearray, memoryview]))
@settings(max_examples=25, deadline=None)
def test_pieces_of_any_size_and_kind(sizes, kind):
    pieces = [bytes([n]) * size for n, size in enumerate(sizes)]
    stream = StreamSealer("fs.files", *at(PERSON))
    out = [stream.header]
    for piece in pieces:
        given = kind(piece)
        out += map(bytes, stream.segments(given))
        if kind is bytearray:
            given[:] = bytes(len(given))  # the caller's own again
    sealed = b"".join([*out, stream.finish()])
    opener = StreamOpener("fs.files", at(PERSON)[1])
    opener.begin(at(PERSON)[0], sealed[: HEADER + 7])
    found = [*map(bytes, opener.segments(kind(sealed[HEADER + 7 :]))), opener.finish()]
    assert b"".join(found) == b"".join(pieces)


@pytest.mark.parametrize("into", [True, False])
def test_one_by_one_each_before_the_next(into, monkeypatch):
    """Their memory is used again; what was kept of it is refused, and is not another segment's bytes."""
    if not into:
        monkeypatch.setattr(segments, "_INTO", False)
    data = os.urandom(3 * SEGMENT + 1)
    key, labels = at(PERSON)
    stream = StreamSealer("fs.files", key, labels)
    sealed, kept = [stream.header], []
    for segment in stream.segments(data):
        sealed.append(bytes(segment))
        kept.append(segment)
    sealed.append(stream.finish())
    if into:
        with pytest.raises(ValueError, match="released"):
            bytes(kept[0])
    assert open_(b"".join(sealed)) == data
    opener = StreamOpener("fs.files", labels)
    opener.begin(key, sealed[0])
    changed = bytearray(sealed[2])
    changed[-1] ^= 1
    found = opener.segments(b"".join([sealed[1], changed, *sealed[3:]]))
    assert bytes(next(found)) == data[:SEGMENT]
    with pytest.raises(DecryptionFailed):
        next(found)


HEADER = 1 + 16 + 12 + 48
WHOLE = SEGMENT + TAG


def cases():
    data = os.urandom(3 * SEGMENT)
    sealed = seal(data)
    header, a, b, c = (
        sealed[:HEADER],
        sealed[HEADER : HEADER + WHOLE],
        sealed[HEADER + WHOLE : HEADER + 2 * WHOLE],
        sealed[HEADER + 2 * WHOLE :],
    )
    yield "cut by a byte", sealed[:-1]
    yield "cut at a segment", header + a + b
    yield "the middle one left out", header + a + c
    yield "reordered", header + b + a + c
    yield "one twice", header + a + a + b + c
    yield "something after the end", sealed + b"\x00"
    yield "a segment after the end", sealed + c
    yield "only the header", header
    yield "a header that was cut", header[:-1]
    yield "another stream's segments", header + seal(data)[HEADER:]


@pytest.mark.parametrize(("what", "sealed"), [pytest.param(w, s, id=w) for w, s in cases()])
def test_a_stream_that_is_not_whole_does_not_open(what, sealed):
    with pytest.raises(DecryptionFailed):
        open_(sealed)


@pytest.mark.parametrize("changes", [{"identity": b""}, {"classification": "CONFIDENTIAL"}])
def test_a_stream_does_not_open_with_another_label(changes):
    sealed = seal(b"x" * 100)
    with pytest.raises(DecryptionFailed):
        open_(sealed, **changes)


def test_a_stream_that_another_segment_was_left_empty_in_does_not_open():
    """An empty last segment after others would let one plaintext have two lengths."""
    stream = StreamSealer("fs.files", *at(PERSON))
    whole = stream.header + stream._segments.seal(b"x" * SEGMENT, b"\x00") + stream.finish()
    with pytest.raises(DecryptionFailed):
        open_(whole)
    with pytest.raises(DecryptionFailed):
        plain_length(7, len(whole))


@pytest.mark.parametrize(("form", "size"), [(7, 0), (7, HEADER), (7, HEADER + 15), (7, HEADER + WHOLE + 3), (5, 10**6)])
def test_no_stream_has_that_length(form, size):
    with pytest.raises(DecryptionFailed):
        plain_length(form, size)


def test_the_bytes_are_those_of_the_format():
    """FORMAT.md, 10 and 11, followed by hand."""
    written = (
        b"\x00\x06SECRET\x00\x06norway" + (1_795_403_811_352).to_bytes(8, "big") + b"\x01\x00\x0dcase-worker-7"
        b"\x00\x20" + b"a" * 32 + b"\x10\x00\x00\x00\x07\x00\x01"
    )
    head = b"\x05" + b"k" * 16
    body = AESGCM(b"s" * 32).encrypt(b"n" * 12, b"the body", b"\x00\x05cases\x00\x00" + head + written)
    assert DocumentSealer("cases").open(PERSON, labels(), head + b"n" * 12 + body) == b"the body"
    head = b"\x07" + b"k" * 16
    stream_key = AESGCM(b"f" * 32).encrypt(b"n" * 12, b"K" * 32, b"\x00\x08fs.files\x00\x00" + head + written)
    cipher = AESGCM(b"K" * 32)
    first = cipher.encrypt(bytes(11) + b"\x00", b"x" * 262_144, None)
    last = cipher.encrypt(bytes(10) + b"\x01\x01", b"yz", None)
    assert open_(head + b"n" * 12 + stream_key + first + last) == b"x" * 262_144 + b"yz"
