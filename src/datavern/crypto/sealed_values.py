"""Sealed values (FORMAT.md, 9): for stores of keys and values, where there is no row to bind to.

A value opens under its own name, in its own dataset and for its own subject, and nowhere else. It says when it was
sealed, so that a reader can refuse what should be gone.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from cryptography.exceptions import InvalidTag

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.encoding import decode, encode
from datavern.crypto.sealed import DataKey, block, text_block

__all__ = ["ValueSealer", "key_id", "sealed_at"]

_FORM: Final = {False: b"\x04", True: b"\x03"}  # by whether the key is a subject's
_HEAD = 25  # form, key id, moment
_urandom = os.urandom


class ValueSealer:
    """Seals and opens values of one dataset and one role.

    Args:
        dataset: its id.
        role: what the values are there: ``"value"`` of a key, ``"message"`` of a channel, ``"entry"`` of a stream.
    """

    __slots__ = ("_begin", "dataset")

    def __init__(self, dataset: str, role: str) -> None:
        self.dataset = dataset
        self._begin = text_block(dataset) + text_block(role)

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
        tag = key.subject_tag
        if key.dataset != self.dataset:
            raise ConfigurationError(f"{self.dataset}: sealing needs a key of this dataset")
        head = _FORM[tag is not None] + key.id + int(time.time() * 1000).to_bytes(8, "big")
        nonce = _urandom(key.nonce_size)
        return head + nonce + key.encrypt(nonce, encode(value), self._bound(head, tag, name, part))

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
        tag = key.subject_tag
        head = sealed[:_HEAD]
        end = _HEAD + key.nonce_size
        if key.dataset == self.dataset and head[:17] == _FORM[tag is not None] + key.id:
            try:
                return decode(key.decrypt(sealed[_HEAD:end], sealed[end:], self._bound(head, tag, name, part)))
            except (InvalidTag, ValueError):
                pass
        raise DecryptionFailed

    def _bound(self, head: bytes, tag: bytes | None, name: bytes, part: bytes) -> bytes:
        return b"".join((self._begin, head, block(tag or b""), len(name).to_bytes(4, "big"), name, part))


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
