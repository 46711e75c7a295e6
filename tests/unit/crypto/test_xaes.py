"""XAES-256-GCM against the specification's own vectors, and against a second derivation."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from hypothesis import given
from hypothesis import strategies as st

from datavern.crypto.xaes import XAESGCM

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


@pytest.mark.parametrize(
    ("key", "associated", "expected"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_vectors_of_the_specification(key, associated, expected):
    cipher = XAESGCM(key)
    assert cipher.encrypt(NONCE, b"XAES-256-GCM", associated).hex() == expected
    assert cipher.decrypt(NONCE, bytes.fromhex(expected), associated) == b"XAES-256-GCM"


def test_ten_thousand_random_messages_of_the_specification():
    stream = hashlib.shake_128(b"").digest(10_000 * (32 + 24 + 2 * 256))
    at, results = 0, hashlib.shake_128()

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return stream[at - size : at]

    assert stream[:16].hex() == "7f9c2ba4e88f827d616045507605853e"
    for _ in range(10_000):
        key, nonce = take(32), take(24)
        plain = take(take(1)[0])
        associated = take(take(1)[0])
        results.update(XAESGCM(key).encrypt(nonce, plain, associated))
    assert results.hexdigest(32) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


@given(key=st.binary(min_size=32, max_size=32), nonce=st.binary(min_size=24, max_size=24), plain=st.binary())
def test_agrees_with_a_derivation_by_the_library_s_own_kdf(key, nonce, plain):
    kdf = KBKDFCMAC(
        algorithm=algorithms.AES,
        mode=Mode.CounterMode,
        length=32,
        rlen=2,
        llen=None,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=b"X\x00" + nonce[:12],
    )
    assert XAESGCM(key).encrypt(nonce, plain, b"a") == AESGCM(kdf.derive(key)).encrypt(nonce[12:], plain, b"a")


def test_refuses_other_sizes_and_changed_bytes():
    for size in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            XAESGCM(bytes(size))
    cipher = XAESGCM(bytes(32))
    for size in (12, 23, 25):
        with pytest.raises(ValueError, match="24 bytes"):
            cipher.encrypt(bytes(size), b"", None)
    sealed = cipher.encrypt(NONCE, b"text", b"a")
    for at in range(24):
        other = NONCE[:at] + bytes([NONCE[at] ^ 1]) + NONCE[at + 1 :]
        with pytest.raises(InvalidTag):
            cipher.decrypt(other, sealed, b"a")
    with pytest.raises(InvalidTag):
        cipher.decrypt(NONCE, sealed, b"b")
    assert "***" in repr(cipher)


def test_aes_256_gcm_of_the_library():
    """McGrew and Viega, test case 16."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    sealed = AESGCM(key).encrypt(
        bytes.fromhex("cafebabefacedbaddecaf888"),
        plain,
        bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
    )
    assert sealed[-16:].hex() == "76fc6ece0f4e1768cddf8853bb2d551b"
