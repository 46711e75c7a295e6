"""Signed notes and plain signatures."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError, LogTampered
from datavern.crypto.notes import open_note
from datavern.crypto.signing import Signer, Verifier, verify

# The example of the Go reference implementation (golang.org/x/mod/sumdb/note), which c2sp.org/signed-note describes.
GO_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    GO_TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


@pytest.fixture
def signer() -> Signer:
    return Signer("eksempel.no/ring", os.urandom(32))


def test_the_reference_implementation_s_note():
    signer = Signer("PeterNeumann", GO_SEED)
    assert signer.verifier == GO_VERIFIER
    assert signer.sign_note(GO_TEXT) == GO_NOTE
    assert open_note(GO_NOTE, [GO_VERIFIER]) == GO_TEXT


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(lambda text: text.replace("\x00", "")))
def test_any_text_opens_again(text):
    signer = Signer("k", bytes(32))
    for body in (text + "\n", "\n\n" + text + "\n\n\n"):
        assert open_note(signer.sign_note(body), [signer.verifier]) == body


def test_every_changed_byte_spoils_a_note(signer):
    note = signer.sign_note("main\n5\nå\n")
    raw = note.encode()
    for at in range(len(raw)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(raw)
            changed[at] ^= bit
            text = changed.decode(errors="replace")
            with pytest.raises(LogTampered):
                open_note(text, [signer.verifier])
    for size in range(len(note)):
        with pytest.raises(LogTampered):
            open_note(note[:size], [signer.verifier])


def test_only_trusted_keys_count(signer):
    note = signer.sign_note("text\n")
    stranger = Signer("eksempel.no/ring", os.urandom(32))
    with pytest.raises(LogTampered, match="no trusted key"):
        open_note(note, [stranger.verifier])
    with pytest.raises(LogTampered, match="no trusted key"):
        open_note(note, [])
    assert open_note(note, [stranger.verifier, signer.verifier]) == "text\n"


def test_signatures_of_strangers_are_passed_over_and_a_wrong_one_of_a_known_key_is_not(signer):
    stranger = Signer("witness.example/1", os.urandom(32))
    text = "text\n"
    both = signer.sign_note(text) + stranger.sign_note(text).split("\n\n")[1]
    assert open_note(both, [signer.verifier]) == text
    assert open_note(both, [stranger.verifier]) == text
    spoiled = signer.sign_note(text) + stranger.sign_note("other\n").split("\n\n")[1]
    assert open_note(spoiled, [signer.verifier]) == text
    with pytest.raises(LogTampered, match=r"witness\.example/1"):
        open_note(spoiled, [signer.verifier, stranger.verifier])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "text\n",
        "text\n\n",
        "text\n\n\n",
        "text\n\nno mark AAAAAAAA\n",
        "text\n\n— name\n",
        "text\n\n— name AAAA\n",
        "text\n\n— name AAAAAAAA",
        "te\x00xt\n\n— name AAAAAAAA\n",
        "te\txt\n\n— name AAAAAAAA\n",
        "text\n\n—  AAAAAAAA\n",
        "text\n\n— name ÅÅÅÅ\n",
        "text\n\n— name AAAAAAB=\n",
        "lone \ud800\n\n— name AAAAAAAA\n",
        "text\n\n" + "— name AAAAAAAA\n" * 100,
    ],
)
def test_what_is_no_note_is_refused(note, signer):
    with pytest.raises(LogTampered):
        open_note(note, [signer.verifier])


@pytest.mark.parametrize("text", ["", "no newline", "bell\x07\n", "tab\t\n", "return\r\n", "nul\x00\n"])
def test_what_cannot_be_a_note_is_not_signed(text, signer):
    with pytest.raises(ValueError, match="the text of a note"):
        signer.sign_note(text)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "tab\t", "line\n", "nbsp\u00a0"])
def test_a_key_name_that_a_note_cannot_carry_is_refused(name):
    with pytest.raises(ConfigurationError, match="name of a signing key"):
        Signer(name, bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeuman+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+AhpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq",
        "PeterNeumann+c74f20a3+not base64",
    ],
)
def test_what_is_no_verifier_is_refused(text):
    with pytest.raises(ConfigurationError, match="not a verifier"):
        Verifier.parse(text)


def test_a_verifier_reads_back(signer):
    assert str(Verifier.parse(signer.verifier + "\n")) == signer.verifier


def test_plain_signatures(signer):
    signature = signer.sign(b"data")
    assert verify(signer.verifier, b"data", signature)
    assert not verify(signer.verifier, b"date", signature)
    assert not verify(signer.verifier, b"data", signature[:-1])
    assert not verify(signer.verifier, b"data", bytes(64))
    assert not verify(Signer(signer.name, os.urandom(32)).verifier, b"data", signature)


def test_a_plain_signature_is_never_that_of_a_note(signer):
    key_id = Verifier.parse(signer.verifier).key_id
    forged = base64.b64encode(key_id + signer.sign(b"text\n")).decode()
    with pytest.raises(LogTampered):
        open_note(f"text\n\n— {signer.name} {forged}\n", [signer.verifier])
    noted = base64.b64decode(signer.sign_note("text\n").rsplit(" ", 1)[1])[4:]
    assert not verify(signer.verifier, b"text\n", noted)


def test_a_signer_shows_no_seed():
    seed = b"\xabSEEDSEEDSEEDSEEDSEEDSEEDSEEDSE\xcd"
    signer = Signer("k", seed)
    assert "SEED" not in repr(signer)
    assert base64.b64encode(seed).decode()[:8] not in repr(signer)
