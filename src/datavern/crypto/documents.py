"""Sealed documents (FORMAT.md, 10): a body sealed as one value, with what stands beside it in the clear bound to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.sealed import KEY_ID, DataKey, block, text_block
from datavern.crypto.xaes import XAESGCM

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["DocumentSealer", "Labels", "label_bytes", "label_prefix"]

_HEAD: Final = 1 + KEY_ID
_NO_FIELD: Final = b"\x00\x00"  # text("") where a sealed field has its name: no field has an empty one
_HALF: Final = 12
_PER_HALF: Final = 1 << 20
"""Documents sealed with one first half of a dataset key's nonce: their second halves are random, so not too many."""
_urandom = os.urandom


def label_prefix(classification: str, location: str) -> bytes:
    """What the labels of all documents of that classification in that location begin with."""
    return text_block(classification) + text_block(location)


def label_bytes(
    prefix: bytes, created_at: int, created_by: str | None, subject_tag: bytes | None, identity: bytes
) -> bytes:
    """Labels in the one way of writing them that is authenticated; the arguments are those of `Labels`."""
    by = b"\x00" if created_by is None else b"\x01" + text_block(created_by)
    tag = b"\x00\x00" if subject_tag is None else block(subject_tag)
    return prefix + created_at.to_bytes(8, "big", signed=True) + by + tag + identity


class Labels:
    """What stands in the clear beside a sealed body.

    Args:
        classification: the classification's name.
        location: the location's name.
        created_at: milliseconds since 1970-01-01 in UTC.
        created_by: who wrote it, or None when nobody said.
        subject_tag: how the key store names the subject, or None for data about nobody.
        identity: what identifies the document in its store, in the store's own encoding.

    Attributes:
        bytes: all of them, as `label_bytes` writes them.
    """

    __slots__ = ("bytes", "subject_tag")

    def __init__(
        self,
        *,
        classification: str,
        location: str,
        created_at: int,
        created_by: str | None,
        subject_tag: bytes | None,
        identity: bytes,
    ) -> None:
        self.subject_tag = subject_tag
        prefix = label_prefix(classification, location)
        self.bytes = label_bytes(prefix, created_at, created_by, subject_tag, identity)


class DocumentSealer:
    """Seals and opens the bodies of one dataset's documents.

    Args:
        dataset: its id.
    """

    __slots__ = ("_begin", "_derived", "_half", "_key", "_left", "dataset")

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self._derived: AESGCM
        self._key: DataKey | None = None
        self._half, self._left = b"", 0
        self._begin = text_block(dataset) + _NO_FIELD

    def seal(self, key: DataKey, labels: bytes, body: bytes) -> bytes:
        """The sealed body.

        Args:
            key: of the document's subject in this dataset, or the dataset's own.
            labels: what is bound to it, as `label_bytes` writes it, with the key's own subject tag.
            body: the document in its store's own encoding.

        Raises:
            ConfigurationError: the key is of another dataset.
        """
        if key.dataset != self.dataset:
            raise ConfigurationError(f"{self.dataset}: sealing a document needs a key of this dataset")
        if key.subject_tag is not None:
            head = b"\x05" + key.id
            nonce = _urandom(_HALF)
            return head + nonce + key.encrypt(nonce, body, self._begin + head + labels)
        head = b"\x06" + key.id
        if key is not self._key or not self._left:
            assert isinstance(key.cipher, XAESGCM)  # noqa: S101  (for the type checker: a dataset's key has no other)
            self._half, self._left, self._key = _urandom(_HALF), _PER_HALF, key
            self._derived = key.cipher.derived(self._half)
        self._left -= 1
        nonce = _urandom(_HALF)
        return head + self._half + nonce + self._derived.encrypt(nonce, body, self._begin + head + labels)

    @staticmethod
    def key_id(sealed: bytes) -> bytes:
        """The id of the key that a sealed body names.

        Raises:
            DecryptionFailed: it is no sealed body.
        """
        if len(sealed) <= _HEAD or sealed[0] not in (5, 6):
            raise DecryptionFailed
        return bytes(sealed[1:_HEAD])

    def open(self, key: DataKey, labels: Labels, sealed: bytes) -> bytes:
        """The body.

        Args:
            key: the one that the sealed body names (`key_id`).
            labels: as they stand beside it now.
            sealed: the sealed body.

        Raises:
            DecryptionFailed: it was not sealed with these labels in this dataset for this person, or was changed.
        """
        head = (b"\x06" if key.subject_tag is None else b"\x05") + key.id
        end = _HEAD + key.nonce_size
        if sealed.startswith(head) and key.dataset == self.dataset and key.subject_tag == labels.subject_tag:
            try:
                return key.decrypt(sealed[_HEAD:end], sealed[end:], self._begin + head + labels.bytes)
            except (InvalidTag, ValueError):
                pass
        raise DecryptionFailed
