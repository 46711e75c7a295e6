"""The sealing of one provider's values."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from datavern.contracts.errors import DecryptionFailed
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.sealed_values import ValueSealer, key_id, sealed_at

if TYPE_CHECKING:
    from datavern.crypto.keystore import DataKey, KeyStore

__all__ = ["Role", "Vault"]

Role = Literal["value", "message", "entry"]


class Vault:
    """Seals and opens, under the subject's key or the dataset's.

    Args:
        store: the key store, open.
        dataset: what the provider's values are called in the key store.
        retention: milliseconds after which a value is not handed out any more; None: no bound.
    """

    __slots__ = ("_dataset", "_retention", "_sealers", "_store")

    def __init__(self, store: KeyStore, dataset: str, retention: int | None) -> None:
        self._store, self._dataset, self._retention = store, dataset, retention
        roles: tuple[Role, ...] = ("value", "message", "entry")
        self._sealers = {role: ValueSealer(dataset, role) for role in roles}

    async def key_for(self, subject: object) -> DataKey:
        """The key that new values are sealed under.

        Args:
            subject: whose they are; None: the dataset's.

        Raises:
            KeyErased: an erasure of the subject runs.
            ConfigurationError: that cannot name a subject.
        """
        if subject is None:
            return await self._store.dataset_key(self._dataset)
        name = canonical_subject(subject)
        keys = self._store.unguarded
        return keys.warm(self._dataset, name) or await keys.key(self._dataset, name)

    async def covers(self, key: DataKey, subject: object) -> bool:
        """Whether what was just written under a subject's key may stay; False: an erasure of the subject runs."""
        return await self._store.unguarded.covers(key, canonical_subject(subject))

    def seal(self, role: Role, key: DataKey, name: bytes, value: Any, part: bytes = b"") -> bytes:
        """The value, sealed under that key, for that place."""
        return self._sealers[role].seal(key, name, value, part)

    async def open(self, role: Role, name: bytes, sealed: bytes, subject: object = None, part: bytes = b"") -> Any:
        """The value again; None when it is older than the retention.

        Args:
            role: what it is.
            name: the key, channel or stream.
            sealed: as the server holds it.
            subject: whose it has to be; None: whoever's.
            part: the field of a stream's entry.

        Raises:
            DecryptionFailed: it was not sealed here, or is not that subject's.
            KeyErased: the subject was erased.
        """
        wanted = key_id(sealed)
        key = self._store.warm_key(wanted)
        if key is None:
            key = (await self._store.keys((wanted,)))[wanted]
        if subject is not None and key.subject_tag != self._store.subject_tag(canonical_subject(subject)):
            raise DecryptionFailed
        value = self._sealers[role].open(key, name, sealed, part)
        if self._retention is not None and sealed_at(sealed) + self._retention <= time.time() * 1000:
            return None
        return value
