"""Keys as the key store keeps them: wrapped, in rows that cannot pass for one another (FORMAT.md, 3 and 4)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from datavern.contracts.values import timestamp
from datavern.crypto.keyring import Keyring
from datavern.crypto.sealed import KEY, KEY_ID, DataKey, block, text_block

__all__ = [
    "DESTROYED",
    "ERASING",
    "LIVING",
    "TAG_KEY",
    "Destroyed",
    "data_context",
    "derived",
    "handle_row",
    "lookup_context",
    "new_key",
    "slot",
    "unwrap",
]

LIVING, ERASING, DESTROYED = "living", "erasing", "destroyed"

TAG_KEY = b"tag-key\x00"
"""The context of the wrapped tag key."""


@dataclass(frozen=True, slots=True)
class Destroyed:
    """A key that is gone.

    Attributes:
        key_id: its id, which is never used again.
        dataset: where it was used.
        destroyed_at: RFC 3339, UTC.
    """

    key_id: bytes
    dataset: str
    destroyed_at: str


def slot(dataset: str, tag: bytes | None) -> bytes:
    """What is unique among living keys: one for each dataset and subject (None: the dataset's own)."""
    return sha256(b"slot\x00" + text_block(dataset) + block(tag or b"")).digest()


def data_context(dataset: str, tag: bytes | None, key_id: bytes) -> bytes:
    """The context of a wrapped data key."""
    return b"data-key\x00" + text_block(dataset) + block(tag or b"") + key_id


def lookup_context(dataset: str, field: str) -> bytes:
    """The context of a wrapped lookup key."""
    return b"lookup-key\x00" + text_block(dataset) + text_block(field)


async def new_key(keyring: Keyring, dataset: str, tag: bytes | None) -> tuple[DataKey, dict[str, Any]]:
    """A new random key, and its row."""
    key_id, raw = os.urandom(KEY_ID), os.urandom(KEY)
    row = {
        "key_id": key_id,
        "slot": slot(dataset, tag),
        "dataset": dataset,
        "subject_tag": tag,
        "state": LIVING,
        "wrapped": await keyring.wrap(raw, data_context(dataset, tag, key_id)),
        "epoch": keyring.epoch,
        "changed": 0,
        "created_at": timestamp(),
        "destroyed_at": None,
    }
    return DataKey(key_id, dataset, tag, raw), row


async def unwrap(keyring: Keyring, dataset: str, tag: bytes | None, key_id: bytes, wrapped: bytes) -> DataKey:
    """The key of a row.

    Raises:
        DecryptionFailed: the wrapped key is not this row's.
        KeyUnavailable: the ring does not hold its epoch.
    """
    return DataKey(key_id, dataset, tag, await keyring.unwrap(wrapped, data_context(dataset, tag, key_id)))


async def derived(
    keyring: Keyring, dataset: str, tag: bytes | None, key_id: bytes, wrapped: bytes, *, purpose: str, length: int
) -> bytes:
    """Bytes for another cipher, drawn from the key of a row (FORMAT.md, 12).

    Raises:
        DecryptionFailed, KeyUnavailable: as `unwrap`.
    """
    raw = await keyring.unwrap(wrapped, data_context(dataset, tag, key_id))
    return HKDF(SHA512(), length, salt=None, info=purpose.encode() + b"\x00" + key_id).derive(raw)


def handle_row(tag: bytes, state: str = LIVING) -> dict[str, Any]:
    """The row of a subject with a new random handle."""
    return {"subject_tag": tag, "handle": os.urandom(16).hex(), "state": state, "created_at": timestamp()}
