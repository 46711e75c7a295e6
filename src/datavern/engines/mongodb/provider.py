"""The provider of MongoDB databases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakKeyDictionary

from pymongo.errors import PyMongoError

from datavern.config import Pool, Secret
from datavern.connectors.retry import run_in_transaction
from datavern.contracts.capabilities import Capabilities, Isolation, Services
from datavern.contracts.errors import CapabilityMissing, ConfigurationError, ResidencyViolation
from datavern.contracts.values import Classification, Compliance, Health, Location, PoolStats
from datavern.engines.ground import Ground
from datavern.engines.mongodb import topology
from datavern.engines.mongodb.ages import MongoDBAges
from datavern.engines.mongodb.audited import Audited, ReadCollection
from datavern.engines.mongodb.client import client_options, database_name, encrypted, make_client, shut
from datavern.engines.mongodb.collection_calls import CollectionCalls
from datavern.engines.mongodb.collections import Collections
from datavern.engines.mongodb.diagnosis import explain_no_server
from datavern.engines.mongodb.document_calls import DocumentCalls
from datavern.engines.mongodb.documents import Documents
from datavern.engines.mongodb.encrypting import check_installed
from datavern.engines.mongodb.fields import FieldEncryption
from datavern.engines.mongodb.files import Files
from datavern.engines.mongodb.keys import Keys, check_residency
from datavern.engines.mongodb.people import MongoDBPeople
from datavern.engines.mongodb.records import MongoDBRecords
from datavern.engines.mongodb.samples import MongoDBSamples
from datavern.engines.mongodb.settings import MongoDBSettings, Replication, Sharding, read_uri, replicated
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

__all__ = ["MongoDBProvider"]

_LOG = logging.getLogger("datavern.residency")

T = TypeVar("T")
_REASONS = {
    "session": "MongoDB has no SQL: use collection(), insert_document and find_document",
    "transactions": "MongoDB's transactions hold documents, not SQL statements: use provider.transaction()",
    "ledger": "Datavern's own tables need SQL: put the ledger in PostgreSQL or SQLite",
    "point_reads": "find_one of a collection reads one document, and its driver pipelines what many tasks ask for",
    "guarded": "an entry of the audit log is in another database than the document",
}


class MongoDBProvider(DocumentCalls, CollectionCalls, Ground):
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
    kind = MongoDBSettings
    needed = ("uri", "mongodb://host:port/database")
    secrets = ("uri", "password")
    settings: MongoDBSettings

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
            "name": name, "uri": uri, "database": database, "username": username, "password": password,
            "location": location, "region": region, "classification": classification, "compliance": compliance,
            "tls": tls, "pool": pool or Pool(), "connect_timeout": connect_timeout, "timeout": timeout,
            "replica_set": replica_set, "read_preference": read_preference,
            "replication": replication or Replication(), "sharding": sharding, "datasets": datasets or {},
            "bucket": bucket, "watch_pool": watch_pool, "field_encryption": field_encryption or {}, "keyring": keyring,
        }  # fmt: skip
        self._set_up(values, path=f"databases.{name}")

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any], *, path: str | None = None) -> Self:
        """A provider from a section of a configuration file: the constructor's settings; `url` may stand for `uri`.

        Raises:
            ConfigurationError: an unknown key, a wrong type, a contradiction: each with its path.
        """
        values = dict(settings)
        if "url" in values:
            if "uri" in values:
                raise ConfigurationError(
                    f"{path or f'databases.{name}'}: uri and url say the same: expected one of them"
                )
            values["uri"] = values.pop("url")
        return super().from_settings(name, values, path=path)

    def _understand(self, path: str) -> None:
        settings = self.settings
        problem = ""
        try:
            self._uri = uri = read_uri(settings.uri.reveal())
            client_options(settings, uri)
            self._database_name = database_name(settings, uri)
        except ConfigurationError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(f"{path}.{problem}")
        if settings.classification is not None:
            check_residency(settings.classification, self.location)
        if settings.field_encryption:
            check_installed(settings.name)

    def _set_up(self, values: dict[str, Any], *, path: str) -> None:
        self._begin_with(replicated(values, path), path=path)
        settings = self.settings
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

    # ---- what it is -------------------------------------------------------------------------------------------------

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
        self._closing = asyncio.get_running_loop().create_task(shut(client))  # collections that are at hand, too

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
                await shut(client)
                raise
            if failed is not None:
                options = client_options(settings, self._uri)
                ours = await explain_no_server(failed, settings, self._uri, options)
                await shut(client)
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
                await shut(client)

    async def health(self) -> Health:
        """Ask the server who it is, and its members how far behind they are. Never raises for one that is silent."""
        if self._elsewhere is not None:
            return Health("unhealthy", detail=self._elsewhere)
        if self._client is None:
            return Health("unhealthy", detail="not open")
        within = min(5.0, self.settings.connect_timeout)
        return await topology.health(self._client, self.name, self.stats(), within=within)

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

    # ---- what belongs to the features above -------------------------------------------------------------------------

    async def store_personal_data(self, data: Mapping[str, Any], consent: Any) -> Any:
        """Seal `data` and keep it in the built-in store for personal data, with consent and audit."""
        services = await self.keys.services("store_personal_data")
        return await services.store_personal_data(self, data, consent)
