"""Collections as they should be: what a caller of the provider uses when it sets up a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from datavern.engines.mongodb import topology

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient

    from datavern.engines.mongodb.collections import Collections, Index
    from datavern.engines.mongodb.fields import EncryptedCollection, FieldEncryption

__all__ = ["CollectionCalls"]


class CollectionCalls:
    """Collections, their indexes, their ``$jsonSchema``, their shards and their encrypted fields."""

    name: str
    field_encryption: FieldEncryption
    _collections: Collections
    _database_name: str

    @property
    def client(self) -> AsyncMongoClient[dict[str, Any]]:
        """PyMongo's own client."""
        raise NotImplementedError

    def encrypted_collection(self, name: str) -> EncryptedCollection:
        """A collection with fields that MongoDB's own client-side field level encryption encrypts.

        Which ones, the setting `field_encryption` says. The keys are Datavern's: one for each person and field.

        Raises:
            ConfigurationError: none of its fields is encrypted.
        """
        return self.field_encryption.collection(name)

    async def prepare_collection(
        self,
        name: str,
        *,
        indexes: Sequence[Index] = (),
        schema: Mapping[str, Any] | None = None,
        fields: Mapping[str, tuple[str, ...]] | None = None,
        validation: Literal["strict", "moderate"] = "strict",
        action: Literal["error", "warn"] = "error",
    ) -> list[str]:
        """Make a collection, its ``$jsonSchema`` and its indexes as they should be; what was run. Idempotent.

        Nothing is dropped: an index that is there with other options is refused.

        Args:
            name: the collection's.
            indexes: those that it must have; others stay.
            schema: its ``$jsonSchema``; another one is replaced. Other parts of its validator stay.
            fields: instead of a schema: path → BSON types, added to the schema that is there.
            validation: "strict" checks every write, "moderate" leaves documents alone that did not fit before.
            action: "error" refuses what does not fit, "warn" lets it in and tells the server's log.

        Raises:
            ConfigurationError: an index is there with other options, or a field with another type.
            ConstraintViolated: documents do not fit a unique index.
        """
        return await self._collections.prepare(
            name, indexes=indexes, schema=schema, fields=fields, validation=validation, action=action
        )

    async def collection_options(self, name: str) -> dict[str, Any] | None:
        """A collection's options (its validator among them), or None when there is no such collection."""
        return await self._collections.options(name)

    async def indexes(self, name: str) -> list[Index]:
        """A collection's indexes; none when there is no such collection."""
        return await self._collections.indexes(name)

    async def shard_collection(
        self, name: str, key: Mapping[str, Literal[1, -1, "hashed"]], *, unique: bool = False
    ) -> list[str]:
        """Shard a collection of a cluster; what was run. Idempotent.

        Raises:
            CapabilityMissing: the server is no cluster's router.
            ConfigurationError: it is sharded already, by another key.
        """
        namespace = f"{self._database_name}.{name}"
        return await topology.shard_collection(self.client, namespace, key, unique=unique, provider=self.name)
