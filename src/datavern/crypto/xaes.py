"""XAES-256-GCM: AES-256-GCM with 192-bit nonces, safe to draw at random for any number of messages.

Source: https://c2sp.org/XAES-256-GCM, a NIST SP 800-108r1 KDF over AES-CMAC in front of AES-256-GCM.
"""

from __future__ import annotations

from threading import Lock

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["XAESGCM"]

_CMAC_CONSTANT = 0b10000111  # NIST SP 800-38B, R128
_COUNTER_1 = 0x0001_5800 << 96  # counter, label "X", 0x00; the nonce's first half follows
_COUNTER_2 = 0x0002_5800 << 96


class XAESGCM:
    """A key, used as `cryptography`'s own `AESGCM` is.

    Args:
        key: 32 bytes.

    Raises:
        ValueError: the key, or later a nonce, has another length.
    """

    __slots__ = ("_block", "_first", "_lock", "_second")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:  # noqa: PLR2004  (the specification has this one size)
            raise ValueError("XAES-256-GCM takes a key of 32 bytes")
        # ECB of whole blocks is the bare block cipher, which is what CMAC is made of. It has no state between blocks,
        # so one encryptor serves for ever; making one for each derivation cost twenty times what the blocks do.
        self._block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update  # noqa: S305
        self._lock = Lock()
        block = int.from_bytes(self._blocks(bytes(16)), "big")
        subkey = block << 1 if block >> 127 == 0 else ((block << 1) ^ _CMAC_CONSTANT) & ((1 << 128) - 1)
        self._first = subkey ^ _COUNTER_1
        self._second = subkey ^ _COUNTER_2

    def __repr__(self) -> str:
        return "XAESGCM(***)"

    def _blocks(self, data: bytes) -> bytes:
        with self._lock:
            return self._block(data)

    def _derive(self, nonce: bytes) -> AESGCM:
        if len(nonce) != 24:  # noqa: PLR2004
            raise ValueError("XAES-256-GCM takes a nonce of 24 bytes")
        return self.derived(nonce[:12])

    def derived(self, half: bytes) -> AESGCM:
        """The AES-256-GCM cipher for all nonces that begin with these 12 bytes; it takes the other 12.

        Deriving it costs ten times what sealing a short value does: whoever seals many may keep it for some of them.
        """
        first = int.from_bytes(half, "big")
        return AESGCM(
            self._blocks((self._first ^ first).to_bytes(16, "big") + (self._second ^ first).to_bytes(16, "big"))
        )

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Ciphertext and tag. A nonce is used once: draw it at random."""
        return self._derive(nonce).encrypt(nonce[12:], data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The plaintext.

        Raises:
            cryptography.exceptions.InvalidTag: the key, nonce, ciphertext or associated data is not the one.
        """
        return self._derive(nonce).decrypt(nonce[12:], data, associated_data)
