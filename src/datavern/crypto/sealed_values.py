"""Sealed values (FORMAT.md, 9): for stores of keys and values, where there is no row to bind to.

A value opens under its own name, in its own dataset and for its own subject, and nowhere else. It says when it was
sealed, so that a reader can refuse what should be gone.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.encoding import decode, encode
from datavern.crypto.sealed import DataKey, text_block
from datavern.crypto.xaes import XAESGCM

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["ValueSealer", "key_id", "sealed_at"]

_HEAD = 25  # form, key id, moment
_HALF = 12
_PER_HALF = 1 << 20
"""Values sealed with one first half of the nonce: their second halves are random, and 2^32 would be too many."""
_DERIVED = 256
"""Derived ciphers that are remembered: one for each process that sealed lately, and a few more."""
_urandom = os.urandom


class ValueSealer:
    """Seals and opens values of one dataset and one role.

    Args:
        dataset: its id.
        role: what the values are there: ``"value"`` of a key, ``"message"`` of a channel, ``"entry"`` of a stream.
    """

    __slots__ = ("_begin", "_derived", "_half", "_left", "dataset")

    def __init__(self, dataset: str, role: str) -> None:
        self.dataset = dataset
        self._begin = text_block(dataset) + text_block(role)
        self._derived: dict[tuple[bytes, bytes], AESGCM] = {}
        self._half, self._left = b"", 0

    def seal(self, key: DataKey, name: bytes, value: Any, part: bytes = b"") -> bytes:
        """The value, sealed now.

        Args:
            key: the subject's in this dataset, or the dataset's own.
            name: where the value stands: the key, the channel, the stream.
            value: anything that `encode` takes.
            part: which part of it: a field of a stream's entry.

        Raises:
            ConfigurationError: a value of a type that cannot be sealed (it is not in the message), or a key of another
                dataset.
        """
        if key.dataset != self.dataset:
            raise ConfigurationError(f"{self.dataset}: sealing needs a key of this dataset")
        moment = int(time.time() * 1000).to_bytes(8, "big")
        nonce, plain = _urandom(_HALF), encode(value)
        if key.subject_tag is not None:
            head = b"\x03" + key.id + moment
            return head + nonce + key.encrypt(nonce, plain, self._bound(head, key, name, part))
        head = b"\x04" + key.id + moment
        if not self._left:
            self._half, self._left = _urandom(_HALF), _PER_HALF
        self._left -= 1
        sealed = self._cipher(key, self._half).encrypt(nonce, plain, self._bound(head, key, name, part))
        return head + self._half + nonce + sealed

    def open(self, key: DataKey, name: bytes, sealed: bytes, part: bytes = b"") -> Any:
        """The value again.

        Args:
            key: the one whose id the value names (`key_id`).
            name: as in `seal`.
            sealed: the value as it is stored.
            part: as in `seal`.

        Raises:
            DecryptionFailed: it was not sealed under this name, dataset and key, or was changed. There is one message
                for every cause.
        """
        head = sealed[:_HEAD]
        if (
            key.dataset == self.dataset
            and head[1:17] == key.id
            and head[0] == (3 if key.subject_tag is not None else 4)
        ):
            bound = self._bound(head, key, name, part)
            try:
                if key.subject_tag is not None:
                    return decode(key.decrypt(sealed[25:37], sealed[37:], bound))
                return decode(self._cipher(key, sealed[25:37]).decrypt(sealed[37:49], sealed[49:], bound))
            except (InvalidTag, ValueError):
                pass
        raise DecryptionFailed

    def _cipher(self, key: DataKey, half: bytes) -> AESGCM:
        """XAES-256-GCM's cipher for nonces that begin with `half`."""
        found = self._derived.get((key.id, half))
        if found is None:
            if len(self._derived) >= _DERIVED:
                del self._derived[next(iter(self._derived))]
            assert isinstance(key.cipher, XAESGCM)  # noqa: S101  (for the type checker: a dataset's key has no other)
            found = self._derived[key.id, half] = key.cipher.derived(half)
        return found

    def _bound(self, head: bytes, key: DataKey, name: bytes, part: bytes) -> bytes:
        tag = key.subject_tag or b""
        lengths = len(tag).to_bytes(2, "big"), len(name).to_bytes(4, "big")
        return b"".join((self._begin, head, lengths[0], tag, lengths[1], name, part))


def key_id(sealed: bytes) -> bytes:
    """The id of the key that a sealed value names.

    Raises:
        DecryptionFailed: it is no sealed value.
    """
    if len(sealed) <= _HEAD or sealed[:1] not in {b"\x03", b"\x04"}:
        raise DecryptionFailed
    return sealed[1:17]


def sealed_at(sealed: bytes) -> int:
    """When a value was sealed, in milliseconds since 1970 (UTC): to be believed once the value was opened."""
    return int.from_bytes(sealed[17:_HEAD], "big")
