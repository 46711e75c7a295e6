"""Keys wrapped under epoch keys (FORMAT.md, 3)."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag

from datavern.contracts.errors import DecryptionFailed
from datavern.crypto.xaes import XAESGCM

__all__ = ["NONCE", "epoch_of", "unwrap", "wrap"]

_VERSION = b"\x01"
_HEAD = 5  # version, epoch
NONCE = _NONCE = 24
_TAG = 16


def _associated(ring_id: bytes, head: bytes, context: bytes) -> bytes:
    return b"datavern-wrap\x00\x01" + ring_id + head[1:] + context


def wrap(
    cipher: XAESGCM, ring_id: bytes, epoch: int, key: bytes, context: bytes, *, nonce: bytes | None = None
) -> bytes:
    """The key in its wrapped form; with 24 random bytes that were drawn for it, when many are wrapped."""
    head = _VERSION + epoch.to_bytes(4, "big")
    nonce = nonce or os.urandom(_NONCE)
    return head + nonce + cipher.encrypt(nonce, key, _associated(ring_id, head, context))


def epoch_of(wrapped: bytes) -> int:
    """The epoch that a wrapped key names.

    Raises:
        DecryptionFailed: it is no wrapped key of this version; an engine that keeps any type in any column may even
            give something else than bytes.
    """
    if not isinstance(wrapped, bytes) or len(wrapped) < _HEAD + _NONCE + _TAG or wrapped[:1] != _VERSION:
        raise DecryptionFailed("a wrapped key did not open")
    return int.from_bytes(wrapped[1:_HEAD], "big")


def unwrap(cipher: XAESGCM, ring_id: bytes, wrapped: bytes, context: bytes) -> bytes:
    """The key again.

    Raises:
        DecryptionFailed: it does not belong to this epoch key, ring or context, or has been changed.
    """
    nonce = wrapped[_HEAD : _HEAD + _NONCE]
    try:
        return cipher.decrypt(nonce, wrapped[_HEAD + _NONCE :], _associated(ring_id, wrapped[:_HEAD], context))
    except InvalidTag:
        pass
    raise DecryptionFailed("a wrapped key did not open")
