"""The provider of MongoDB databases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from weakref import WeakKeyDictionary

import pymongo
from pymongo.errors import PyMongoError

from datavern.config import Pool, Secret, checked
from datavern.connectors.retry import run_in_transaction
from datavern.contracts.capabilities import Capabilities, Isolation, Provider, Services
from datavern.contracts.errors import CapabilityMissing, ConfigurationError, ResidencyViolation
from datavern.contracts.regions import locate
from datavern.contracts.values import Classification, Compliance, Health, Location, PoolStats
from datavern.engines.mongodb import topology
from datavern.engines.mongodb.ages import MongoDBAges
from datavern.engines.mongodb.audited import Audited, ReadCollection
from datavern.engines.mongodb.client import client_options, database_name, encrypted, make_client
from datavern.engines.mongodb.collections import Collections, Index
from datavern.engines.mongodb.diagnosis import explain_no_server
from datavern.engines.mongodb.documents import Documents
from datavern.engines.mongodb.encrypting import check_installed
from datavern.engines.mongodb.fields import FieldEncryption
from datavern.engines.mongodb.files import Files
from datavern.engines.mongodb.keys import Keys, check_residency
from datavern.engines.mongodb.people import MongoDBPeople
from datavern.engines.mongodb.reclassifying import reclassify
from datavern.engines.mongodb.records import MongoDBRecords
from datavern.engines.mongodb.samples import MongoDBSamples
from datavern.engines.mongodb.settings import MongoDBSettings, Replication, Sharding, read_uri
from datavern.engines.mongodb.subjects import MongoDBSubjects
from datavern.engines.mongodb.transactions import (
    MongoDBTransaction,
    Session,
    Translated,
    not_connected,
    read_concern_for,
)
from datavern.engines.mongodb.watch import PoolWatch, pool_stats
from datavern.engines.mongodb.whereabouts import MongoDBWhereabouts, Newcomers

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.database import AsyncDatabase

    from datavern.config import TLS
    from datavern.engines.mongodb.encrypting import Algorithm
    from datavern.engines.mongodb.fields import EncryptedCollection

__all__ = ["MongoDBProvider"]

_LOG = logging.getLogger("datavern.residency")

T = TypeVar("T")
_PATIENCE = 2.0  # seconds that closing waits for servers to hear of it
_REASONS = {
    "session": "MongoDB has no SQL: use collection(), insert_document and find_document",
    "transactions": "MongoDB's transactions hold documents, not SQL statements: use provider.transaction()",
    "ledger": "Datavern's own tables need SQL: put the ledger in PostgreSQL or SQLite",
    "point_reads": "find_one of a collection reads one document, and its driver pipelines what many tasks ask for",
    "guarded": "an entry of the audit log is in another database than the document",
}


class MongoDBProvider:
    """A MongoDB database, on PyMongo's asyncio client.

    `collection()` is PyMongo's own, with PyMongo's own errors (`translated` turns them into Datavern's). Everything
    else here raises Datavern's, which quote no value.

    Args:
        uri: ``mongodb://host:port/database``, as PyMongo reads it; a `Secret` where it holds a password.
        name: unique within a manager.
        location: where the data is: "norway", "eu" or "global".
        region: a region identifier, ``azure:norwayeast``: the location follows from it.
        classification: of documents and files that do not say their own; CONFIDENTIAL when None.
        replica_set: name of the replica set: short for ``replication=Replication(replica_set=…)``.
        read_preference: where reads go: short for ``replication=Replication(read_preference=…)``.
        compliance: rule sets to enforce: "gdpr", "nsm".
        keyring: where the keys are, for a provider that belongs to no manager: ``file:keys``.
        settings: everything else: see `MongoDBSettings`.

    Raises:
        ConfigurationError: a setting is wrong, or contradicts the URI. The URI is not in the message.
        ResidencyViolation: data of that classification may not be in that location.
    """

    engine = "mongodb"

    def __init__(
        self,
        *,
        uri: str | Secret,
        name: str = "mongodb",
        database: str | None = None,
        username: str | None = None,
        password: str | Secret | None = None,
        location: Location | str | None = None,
        region: str | None = None,
        classification: Classification | str | None = None,
        compliance: Iterable[Compliance] = (),
        tls: TLS | None = None,
        pool: Pool | None = None,
        connect_timeout: float = 10.0,
        timeout: float | None = None,
        replica_set: str | None = None,
        read_preference: str | None = None,
        replication: Replication | None = None,
        sharding: Sharding | None = None,
        datasets: Mapping[str, str] | None = None,
        bucket: str = "fs",
        watch_pool: bool = False,
        field_encryption: Mapping[str, Mapping[str, Algorithm]] | None = None,
        keyring: str | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "uri": uri,
            "database": database,
            "username": username,
            "password": password,
            "location": location,
            "region": region,
            "classification": classification,
            "compliance": compliance,
            "tls": tls,
            "pool": pool or Pool(),
            "connect_timeout": connect_timeout,
            "timeout": timeout,
            "replica_set": replica_set,
            "read_preference": read_preference,
            "replication": replication or Replication(),
            "sharding": sharding,
            "datasets": datasets or {},
            "bucket": bucket,
            "watch_pool": watch_pool,
            "field_encryption": field_encryption or {},
            "keyring": keyring,
        }
        self._set_up(name, values)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """A provider from a section of a configuration file: the constructor's settings; `url` may stand for `uri`.

        Raises:
            ConfigurationError: an unknown key, a wrong type, a contradiction: each with its path.
        """
        values = {key: value for key, value in settings.items() if key != "provider"}
        if "url" in values:
            if "uri" in values:
                raise ConfigurationError(f"databases.{name}: uri and url say the same: expected one of them")
            values["uri"] = values.pop("url")
        if "uri" not in values:
            raise ConfigurationError(f"databases.{name}.uri: missing; expected mongodb://host:port/database")
        provider = cls.__new__(cls)
        provider._set_up(name, values)  # noqa: SLF001  (the other half of the constructor)
        return provider

    def _set_up(self, name: str, given: dict[str, Any]) -> None:
        path = f"databases.{name}"
        values = _replicated({**given, "name": name}, path)
        for secret in ("uri", "password"):
            if isinstance(values.get(secret), str):
                values[secret] = Secret(values[secret], origin=f"{path}.{secret}")
        if not isinstance(values.get("compliance", ()), str):
            values["compliance"] = frozenset(values.get("compliance", ()))
        self.settings = settings = checked(MongoDBSettings, values, path=path)
        problem = ""
        try:
            self._uri = uri = read_uri(settings.uri.reveal())
            client_options(settings, uri)
            self._database_name = database_name(settings, uri)
        except ConfigurationError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(f"{path}.{problem}")
        self.name = settings.name
        self.region = settings.region
        self.face: Provider = self
        self.compliance: frozenset[str] = frozenset(settings.compliance)
        self.location = settings.location or (locate(self.region) if self.region else Location.GLOBAL)
        if settings.classification is not None:
            check_residency(settings.classification, self.location)
        self._check_compliance(path)
        if settings.field_encryption:
            check_installed(settings.name)
        default = settings.classification or Classification.CONFIDENTIAL
        self._client: AsyncMongoClient[dict[str, Any]] | None = None
        self._opening: asyncio.Lock | None = None
        self._closing: asyncio.Task[None] | None = None
        self._elsewhere: str | None = None
        self._watch = PoolWatch() if settings.watch_pool else None
        self.keys = Keys(self, settings.keyring)
        self.transactions_open: WeakKeyDictionary[AsyncClientSession, MongoDBTransaction] = WeakKeyDictionary()
        self.audited = Audited(self)
        self._documents = Documents(self, default)
        self._collections = Collections(self)
        self.field_encryption = FieldEncryption(self, settings.field_encryption)
        self.files = Files(self, default)
        subjects = MongoDBSubjects(self)
        self._capabilities = Capabilities(
            subjects=subjects,
            people=MongoDBPeople(self, subjects),
            ages=MongoDBAges(self, subjects),
            records=MongoDBRecords(self),
            samples=MongoDBSamples(self),
            whereabouts=MongoDBWhereabouts(self),
            reasons=_REASONS,
        )

    def _check_compliance(self, path: str) -> None:
        if "nsm" in self.compliance and not self.encrypted:
            raise ConfigurationError(
                f"{path}: compliance nsm refuses an unencrypted or unverified connection beyond this machine "
                "(NSM 2.7.4): use tls verify full"
            )

    def __repr__(self) -> str:
        return f"MongoDBProvider({self.name!r})"

    # ---- what it is -------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def encrypted(self) -> bool:
        """Whether connections are encrypted and verified, or cannot leave this machine."""
        return encrypted(self.settings, self._uri)

    @property
    def client(self) -> AsyncMongoClient[dict[str, Any]]:
        """PyMongo's own client.

        Raises:
            ConnectionFailed: the provider is not open.
            ResidencyViolation: a member has joined that is further away than the settings say.
        """
        if self._elsewhere is not None:
            raise ResidencyViolation(f"{self.name}: {self._elsewhere}")
        if self._client is None:
            raise not_connected(self.name)
        return self._client

    def _joined_elsewhere(self, problem: str) -> None:
        """A member further away has joined: nothing more goes to this set until it is opened anew."""
        client = self._client
        if client is None or self._elsewhere is not None:
            return  # opening compares by itself
        self._elsewhere = problem
        _LOG.error("%s: %s: the set is not used any more", self.name, problem)
        self._closing = asyncio.get_running_loop().create_task(_shut(client))  # collections that are at hand, too

    @property
    def database(self) -> AsyncDatabase[dict[str, Any]]:
        """PyMongo's own database."""
        return self.client[self._database_name]

    def collection(self, name: str) -> AsyncCollection[dict[str, Any]]:
        """PyMongo's own collection: nothing to relearn, and PyMongo's own errors.

        Where compliance is ``nsm`` and the data map names the collection, its calls that write raise `PrivacyError`.

        Raises:
            ConnectionFailed: the provider is not open.
        """
        return ReadCollection(self.database, name, self.name) if name in self.audited.stores else self.raw(name)

    def raw(self, name: str) -> AsyncCollection[dict[str, Any]]:
        """PyMongo's own collection, for what Datavern itself writes."""
        return self.database[name]

    def stats(self) -> PoolStats:
        """The connections, at this moment."""
        return PoolStats() if self._client is None else pool_stats(self._client, self._watch)

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        self.keys.attach(services)
        self.audited.attach(services)
        self._documents.forget()

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Find the servers, and compare what they say of themselves with the settings. Idempotent.

        Raises:
            ConfigurationError: another replica set, too few members, no cluster where one was asked for.
            ConnectionFailed: no server answers, or none takes the user.
            ResidencyViolation: a member lies where the settings say that it does not.
        """
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._client is not None:
                _ = self.client  # refuses, where a member joined from elsewhere
                return
            self._elsewhere = None
            newcomers = Newcomers(self.location, self._joined_elsewhere)
            client = make_client(self.settings, self._watch, newcomers)
            settings = self.settings
            failed: PyMongoError | None = None
            try:
                await topology.check_server(client, settings, self.location, self._database_name)
                if newcomers.problem is not None:
                    raise ResidencyViolation(f"{self.name}: {newcomers.problem}")  # noqa: TRY301  (closed below)
            except PyMongoError as error:
                failed = error
            except BaseException:
                await _shut(client)
                raise
            if failed is not None:
                options = client_options(settings, self._uri)
                ours = await explain_no_server(failed, settings, self._uri, options)
                await _shut(client)
                raise ours
            self._client = client

    async def close(self) -> None:
        """Close every connection. Idempotent; a server that does not answer is not waited for."""
        client, self._client = self._client, None
        closing, self._closing = self._closing, None
        if closing is not None:
            await closing
        self._documents.forget()
        await self.field_encryption.close()
        try:
            await self.keys.close()
        finally:
            if client is not None:
                await _shut(client)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def health(self) -> Health:
        """Ask the server who it is, and its members how far behind they are. Never raises for one that is silent."""
        if self._elsewhere is not None:
            return Health("unhealthy", detail=self._elsewhere)
        if self._client is None:
            return Health("unhealthy", detail="not open")
        within = min(5.0, self.settings.connect_timeout)
        return await topology.health(self._client, self.name, self.stats(), within=within)

    # ---- documents --------------------------------------------------------------------------------------------------

    def insert_document(
        self,
        collection: str,
        document: Mapping[str, Any],
        *,
        classification: Classification | str | None = None,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Insert a document with its metadata; sealed when it is CONFIDENTIAL or SECRET. Its ``_id`` comes back.

        ``_metadata`` is added: classification, created_at, created_by (`datavern.actor`), location; with `subject` a
        keyed tag, by which an erasure finds it. Sealed, the document is ``_id``, ``_metadata`` and ``_sealed``.

        Args:
            collection: its name.
            document: with an ``_id`` or without. It is not changed.
            classification: the provider's own when None.
            subject: whose it is: the body is sealed under the person's key; otherwise under the collection's.
            session: of `transaction` or `session`.

        Raises:
            ResidencyViolation: such data may not be here.
            KeyErased: an erasure of the subject runs; nothing is written.
            ConstraintViolated: a unique index has such a value, or the collection's validator says no.
            QueryRejected: the document is too large, or a value cannot be encoded (the message names its path).
            OutcomeUnknown: it was sent, and no answer came.
            ConfigurationError: no keys, or the data map could not find the document's subject.
        """
        insert = self._documents.insert(collection, document, classification, subject, session)
        if self.audited.asked:
            return self.audited.before(insert, collection, "inserted", subject)
        return insert

    async def find_document(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (PyMongo's own name for it)
        *,
        session: AsyncClientSession | None = None,
    ) -> dict[str, Any] | None:
        """The first document that matches, opened; or None.

        A filter reaches what is in the clear: ``_id``, ``_metadata``, and everything of a document that is not sealed.

        Raises:
            KeyErased: its subject was erased: nobody can open it again.
            DecryptionFailed: it, or its metadata, was changed, or belongs elsewhere.
            ConfigurationError: it was encrypted by MongoDB's client-side field level encryption.
            ProcessingRestricted, ConsentRequired: its person's data is restricted, or may not be read without consent.
        """
        return await self._documents.find_one(collection, filter, session)

    def find_documents(
        self,
        collection: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002  (PyMongo's own name for it)
        *,
        subject: object = None,
        sort: Sequence[tuple[str, int]] | None = None,
        limit: int = 0,
        session: AsyncClientSession | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """``async for`` over the documents that match, opened; those of one subject with `subject`.

        Raises:
            KeyErased, DecryptionFailed, ConfigurationError: as `find_document`. What may not be used is left out.
        """
        return self._documents.find(collection, filter, subject=subject, sort=sort, limit=limit, session=session)

    async def replace_document(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002  (PyMongo's own name for it)
        document: Mapping[str, Any],
        *,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> bool:
        """Put another body into the first document that matches; its metadata stays. Whether there was one.

        Args:
            collection: its name.
            filter: as for `find_document`.
            document: the new body, sealed if the old one was.
            subject: whose it is, if it is somebody's: the same person as before.
            session: as for `insert_document`.

        Raises:
            ConfigurationError: `subject` is missing, or another; or the document was not written by `insert_document`.
        """
        await self.audited.note(collection, "replaced", subject)
        return await self._documents.replace(collection, filter, document, subject, session)

    async def reclassify_document(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002  (PyMongo's own name for it)
        classification: Classification | str,
        *,
        subject: object = None,
        session: AsyncClientSession | None = None,
    ) -> bool:
        """Give the first document that matches another classification; whether there was one.

        Its body is sealed, or put into the clear, as the new one asks for; the rest of its metadata stays. It runs in
        a transaction, so that nobody's change in between is lost: MongoDB has them in replica sets and clusters.

        Args:
            collection: its name.
            filter: as for `find_document`.
            classification: the new one.
            subject: whose it is, if it is somebody's.
            session: as for `insert_document`.

        Raises:
            ResidencyViolation: such data may not be here. Nothing is changed.
            ConfigurationError: `subject` is missing, or another; the data map would not find its subject any more; or
                it was not written by `insert_document`.
            DecryptionFailed, KeyErased, ProviderError: as reading and writing it.
        """
        await self.audited.note(collection, "reclassified", subject)
        return await reclassify(
            self._documents, self, collection, filter, classification=classification, subject=subject, session=session
        )

    async def open_documents(self, collection: str, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Documents of any query of PyMongo's that kept ``_id``, ``_metadata`` and ``_sealed``, opened."""
        await self._documents.admit(self._documents.place(collection), collection, documents)
        return await self._documents.open(collection, documents)

    def encrypted_collection(self, name: str) -> EncryptedCollection:
        """A collection with fields that MongoDB's own client-side field level encryption encrypts.

        Which ones, the setting `field_encryption` says. The keys are Datavern's: one for each person and field.

        Raises:
            ConfigurationError: none of its fields is encrypted.
        """
        return self.field_encryption.collection(name)

    # ---- transactions -----------------------------------------------------------------------------------------------

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False, tenant: str | None = None
    ) -> MongoDBTransaction:
        """``async with mongo.transaction() as session:`` PyMongo's session, in a transaction of its own.

        Args:
            isolation: "snapshot" (the default; it is "repeatable read" too) or "read committed".
            read_only: MongoDB has no such transactions.
            tenant: MongoDB has no row-level security.

        Raises:
            CapabilityMissing: what MongoDB does not have was asked for.
        """
        if tenant is not None:
            raise CapabilityMissing(
                "row-level security", self.name, "MongoDB has none: keep a database for each tenant"
            )
        if read_only:
            raise CapabilityMissing("read-only transactions", self.name, "MongoDB has none: use session(snapshot=True)")
        return MongoDBTransaction(self, read_concern_for(isolation, self.name))

    async def run_in_transaction(
        self,
        work: Callable[[AsyncClientSession], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        attempts: int = 5,
    ) -> T:
        """Run ``work(session)`` in a transaction, again from the start while an error says that it may be (`retry`).

        A commit without an answer (`OutcomeUnknown`) is not retried: it may have happened.
        """
        return await run_in_transaction(
            lambda: self.transaction(isolation=isolation, read_only=read_only), work, attempts=attempts
        )

    def session(self, *, causal: bool = True, snapshot: bool = False) -> Session:
        """``async with mongo.session() as session:`` reads with it see what was written with it, on every member.

        Args:
            causal: keep reads and writes in their causal order.
            snapshot: read everything as of one moment instead; such a session cannot write.
        """
        return Session(self, {"snapshot": True} if snapshot else {"causal_consistency": causal})

    def translated(self, *, wrote: bool = True) -> Translated:
        """``async with mongo.translated():`` PyMongo's errors that leave the block come out as Datavern's.

        Args:
            wrote: whether something in the block writes: then no answer means `OutcomeUnknown`.
        """
        return Translated(self.name, wrote=wrote)

    # ---- collections ------------------------------------------------------------------------------------------------

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

    async def store_personal_data(self, data: Mapping[str, Any], consent: Any) -> Any:
        """Seal `data` and keep it in the built-in store for personal data, with consent and audit."""
        services = await self.keys.services("store_personal_data")
        return await services.store_personal_data(self, data, consent)


def _replicated(values: dict[str, Any], path: str) -> dict[str, Any]:
    """`values` with the short forms put into ``replication``."""
    for short in ("replica_set", "read_preference"):
        value = values.pop(short, None)
        if value is None:
            continue
        given = values.get("replication")
        if isinstance(given, Mapping):
            given = checked(Replication, given, path=f"{path}.replication")
        given = given or Replication()
        if getattr(given, short) not in (None, value):
            raise ConfigurationError(f"{path}.{short}: replication says another: leave one of them out")
        said = {one.name: getattr(given, one.name) for one in fields(Replication)}
        values["replication"] = {**said, short: value}
    return values


async def _shut(client: AsyncMongoClient[dict[str, Any]]) -> None:
    """Close a client, whatever its servers do."""
    try:
        with pymongo.timeout(_PATIENCE):
            await client.close()
    except PyMongoError:
        await client.close()  # the goodbye was not heard; what is left is this side
    for _ in range(3):  # a connection that was being made is cancelled, and ends a few turns of the loop later
        await asyncio.sleep(0)
