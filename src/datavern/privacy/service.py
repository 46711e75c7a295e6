"""Privacy, wired together: what a manager with keys gives its callers and its providers."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from datavern.audit.log import AuditLog
from datavern.audit.service import Audit
from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    ConsentRequired,
    DatavernError,
    ProviderError,
)
from datavern.contracts.identity import fodselsnummer
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import now, timestamp
from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.crypto.life import KeyLife
from datavern.privacy.consent.consent import Consents
from datavern.privacy.consent.standing import Standing
from datavern.privacy.datamap.datamap import DataMap
from datavern.privacy.datamap.dataset import OWN_DATASETS, Dataset, Field
from datavern.privacy.holds.holds import Holds
from datavern.privacy.journal import tables
from datavern.privacy.journal.journal import Steps
from datavern.privacy.personal.records import RecordStore
from datavern.privacy.personal.store import PersonalStore
from datavern.privacy.requests.requests import SubjectRequests
from datavern.privacy.residency.residency import Residency
from datavern.privacy.sealing.rotation import Rotator

if TYPE_CHECKING:
    from datavern.audit.publishing import Publisher
    from datavern.contracts.capabilities import Provider, Transaction
    from datavern.contracts.services import Gate
    from datavern.crypto.signing import Signer
    from datavern.privacy.consent.consent import Consent
    from datavern.privacy.erasure.completing import Completions
    from datavern.privacy.erasure.derived import Derived
    from datavern.privacy.personal.reads import Reads
    from datavern.privacy.personal.shape import DDL
    from datavern.privacy.retention.run import Retention
    from datavern.privacy.sealing.in_place import InPlace

__all__ = ["PERSONAL_DATA", "Privacy", "Site"]

CONSENT_AGE: Final = 13
"""From which age people consent to information society services themselves (personopplysningsloven § 5)."""
_TELLS_NOTHING: Final = 2032
_BORN: Final = ("fodselsnummer", "d-number", "tenor")
"""The numbers that tell a birth date: not those whose offset of 40 on the month may mean two things."""
PERSONAL_DATA = "personal_data"
"""The built-in table, for personal data without a table of its own."""


@dataclass(frozen=True, slots=True)
class Site:
    """What Datavern keeps in a database that holds datasets: each commits with the rows beside it.

    Attributes:
        provider: the database.
        life: which keys live.
        log: its audit log.
        steps: the steps of subject requests that were done here.
    """

    provider: Provider
    life: KeyLife
    log: AuditLog
    steps: Steps


class Privacy:
    """Keys, consents, audit, personal data and subject requests over the databases of one manager.

    Args:
        databases: name → provider.
        data_map: which personal data lies where; nothing but the built-in table when None.
        keyring: where the keys are: ``file:keys``.
        ledger: name of the database that holds Datavern's own tables.
        organisation: who is responsible for the data, as it stands on certificates.
        key_copies: where copies of the key store go: a folder; None: beside a ring of files.
        publishers: where the audit log's checkpoints are published.
        require_identity: whether subject requests need it recorded how it was made sure who asks.
        derived: name → what the application made of personal data elsewhere; what is added to it later counts too.
        consent_age: from which age people consent themselves, in years.

    Attributes:
        keys: the key store.
        ledger: the database that holds Datavern's own tables.
        ledger_name: its name in the manager.
        organisation: as given.
        require_identity: as given.
        derived: as given.
        beside: the database with the key store of a provider that is used alone and cannot hold it: closed with this.
    """

    def __init__(
        self,
        databases: Mapping[str, Provider],
        *,
        data_map: DataMap | None = None,
        keyring: str,
        ledger: str,
        organisation: str = "",
        key_copies: Any = None,
        publishers: Sequence[Publisher] = (),
        require_identity: bool = False,
        derived: Mapping[str, Derived] | None = None,
        consent_age: int = CONSENT_AGE,
    ) -> None:
        self.require_identity = require_identity
        self.derived: Mapping[str, Derived] = {} if derived is None else derived
        self._consent_age = consent_age
        self._publishers = publishers
        self._databases = databases
        self._data_map = data_map if data_map is not None else DataMap()
        self._keyring = Keyring.from_url(keyring)
        self.ledger_name = ledger
        self.ledger = databases[ledger]
        self.organisation = organisation
        self.keys = KeyStore(self._keyring, self.ledger)
        self.keys.rotator = Rotator(self, self._keyring, key_copies)
        self._sites: dict[str, Site] = {}
        self._stores: dict[str, PersonalStore] = {}
        self._read: dict[str, PersonalStore] = {}  # those of them whose reads are audited, as callers get them
        self._reads: dict[str, Reads] = {}
        self._own: dict[str, PersonalStore] = {}
        self._open = False
        self.beside: Provider | None = None
        self._consents: Consents
        self.standing: Standing
        self._audit: Audit
        self._requests: SubjectRequests
        self._holds = Holds(self)

    async def open(self) -> None:
        """Open the keys, and make Datavern's own tables. Idempotent.

        What a crash left open is for `requests.resume`, once the databases know their services.

        The databases are connected. A database that cannot hold Datavern's tables is passed over.

        Raises:
            ConfigurationError: the key ring is missing, readable by others, of a later version, or another than the
                key store's.
        """
        if self._open:
            return
        try:
            await self._begin()
        except BaseException:
            await self._keyring.close()
            raise
        self._open = True

    async def _begin(self) -> None:
        await self._keyring.open()
        await self.keys.open()
        signer = self._keyring.signer
        for name, provider in self._databases.items():
            capabilities = provider.capabilities
            if capabilities.ledger is None or capabilities.transactions is None:
                continue
            log = AuditLog(provider, signer, origin=f"datavern/{self._keyring.ring_id}/{name}")
            site = Site(provider, KeyLife(provider), log, Steps(provider))
            await site.life.open()
            await site.log.open()
            await site.steps.open()
            self._sites[name] = site
        self._consents = Consents(self.ledger, self.keys, self.ledger_log, age=self._consent_age, born=self._born)
        await self._consents.open()
        await needs(self.ledger, "ledger").create_tables(tables.ledger_tables())
        self.standing = Standing(self.ledger, self.keys)
        await self.standing.open()
        await self._holds.open()
        logs = {name: site.log for name, site in self._sites.items()}
        self._audit = Audit(logs, self.ledger_name, self.keys, self._publishers)
        for dataset in self._data_map:
            self._stores[dataset.name] = self._store(dataset)
        self._link()
        for name in self._sites:
            mapped = {dataset.table for dataset in self._data_map.of_database(name)}
            if PERSONAL_DATA not in mapped:
                self._own[name] = self._store(_personal_data(name))
        for store in self._stores.values():
            await _warm(store)
        self._requests = SubjectRequests(self)
        await self._requests.completions.open()
        self._watch()

    def _link(self) -> None:
        """Have the stores followed whose rows name no person themselves."""
        for name, store in self._stores.items():
            via = self._data_map.via(self._data_map[name])
            if via is not None:
                from datavern.privacy.links.links import Link  # noqa: PLC0415  (few data maps ask for it)

                target, column = via
                store.link = Link(store, self._stores[target.name], column, of=target)
                store.link.target.led.append(store.link)

    def _watch(self) -> None:
        """Have the reads of the datasets audited for which the data map asks it."""
        self._reads, self._read = {}, {}
        for name, store in self._stores.items():
            if store.dataset.audit_reads:
                from datavern.privacy.personal.reads import Reads, watched  # noqa: PLC0415  (few data maps ask for it)

                site = self._sites.get(store.dataset.database) or self._sites[self.ledger_name]
                reads = self._reads.setdefault(site.log.origin, Reads(site.log, self.keys))
                self._read[name] = watched(store, reads)

    async def close(self) -> None:
        """Drop the keys. Idempotent. The databases stay open: they are the manager's."""
        if self._open:
            await self.standing.close()
        self._open = False
        reads, self._reads, self._read = self._reads, {}, {}
        for one in reads.values():
            await one.close()
        self.keys.close()
        beside, self.beside = self.beside, None
        try:
            await self._keyring.close()
        finally:
            if beside is not None:
                await beside.close()

    # ---- what the manager offers ------------------------------------------------------------------------------------

    @property
    def consents(self) -> Consents:
        """Consent: grant, withdraw, list."""
        return self._consents

    @property
    def audit(self) -> Audit:
        """The audit log: record, seal, verify, prove."""
        return self._audit

    @property
    def requests(self) -> SubjectRequests:
        """Requests of the people that the data is about."""
        return self._requests

    @property
    def holds(self) -> Holds:
        """Legal holds: place, release, list."""
        return self._holds

    @property
    def retention(self) -> Retention:
        """Retention runs: what is past its time ends."""
        from datavern.privacy.retention.run import Retention  # noqa: PLC0415  (once a day)

        return Retention(self)

    @property
    def completions(self) -> Completions:
        """Erasures that had to leave rows, until these may go."""
        return self._requests.completions

    @property
    def sites(self) -> list[Site]:
        """What Datavern keeps in each database that can hold it."""
        return list(self._sites.values())

    def personal(self, dataset: str) -> PersonalStore:
        """The rows of a dataset, sealed and opened.

        Raises:
            ConfigurationError: the data map has no dataset of that name.
        """
        return self._read.get(dataset) or self.unwatched(dataset)

    def unwatched(self, dataset: str) -> PersonalStore:
        """The same for Datavern itself, whose reads are not audited. Raises as `personal`."""
        found = self._stores.get(dataset)
        return found if found is not None else self._stores[self._data_map[dataset].name]

    def store_of(self, provider: Provider, table: str) -> PersonalStore | None:
        """The store of the dataset whose table that is, in a provider of the manager's; None where it is none."""
        name = next((name for name, known in self._databases.items() if known is provider.face), None)
        return next((s for s in self._stores.values() if s.dataset.database == name and s.dataset.table == table), None)

    def name_of(self, provider: Provider) -> str:
        """The name of a provider in this manager; its own where it is none of them."""
        return next((name for name, known in self._databases.items() if known is provider.face), provider.name)

    def mapped_store(self, database: str, store: str) -> PersonalStore | None:
        """The dataset over that collection or key pattern, as an engine names it."""
        found = (s for s in self._stores.values() if s.dataset.database == database)
        return next((s for s in found if store in (getattr(s, "holding", s.dataset).store, s.dataset.table)), None)

    def gate(self, provider: Provider) -> Gate:
        """What a provider asks before a call of its own uses somebody's data."""
        from datavern.privacy.personal.gates import EngineGate  # noqa: PLC0415  (only where there are records)

        return EngineGate(self, provider)

    def in_place(self, column: str, *, batch_size: int = 500, step: Any = None) -> InPlace:
        """The sealing of a column that is there: see `datavern.privacy.sealing.in_place`."""
        from datavern.privacy.sealing.in_place import InPlace  # noqa: PLC0415  (once in the life of a column)

        return InPlace(self, column, batch_size=batch_size, step=step)

    async def prepare(self, dataset: str) -> DDL:
        """Make the dataset's table fit the data map; what was run. Idempotent."""
        return await self.personal(dataset).prepare()

    async def store_personal_data(self, provider: Provider, data: Mapping[str, Any], consent: Consent | str) -> str:
        """Seal `data` and keep it in the provider's built-in ``personal_data`` table; the new row's id.

        It is part of access and erasure requests like any dataset. What is stored here stays in Norway: a provider
        elsewhere is refused.

        Args:
            provider: one of the manager's.
            data: what to keep; ``user_id`` (or ``subject``) says whose it is. The rest is sealed as one value.
            consent: a consent of that subject, to any purpose, or its id.

        Raises:
            ConsentRequired: no consent was given, or it does not hold.
            ConfigurationError: nobody is named, or a value that JSON does not have.
            ResidencyViolation: the provider, or the ledger, is not in Norway.
        """
        name = next((name for name, known in self._databases.items() if known is provider), "")
        store = self._own.get(name)
        if store is None:
            raise ConfigurationError(
                f"{name or provider.name}: {PERSONAL_DATA} is a dataset of the data map here: write to that, "
                if name in self._sites
                else f"{name or provider.name}: has no built-in table {PERSONAL_DATA} in this manager"
            )
        naming = next((key for key in ("user_id", "subject") if data.get(key) is not None), None)
        if naming is None:
            raise ConfigurationError("store_personal_data: user_id is missing; it says whose data it is")
        if consent is None:
            raise ConsentRequired(f"{store.dataset.label}: no consent was given, and the write needs one")
        for place in (provider, self.ledger):
            Residency().validate(store.dataset.classification, place.location)
        subject = canonical_subject(data[naming])
        if not await store.exists():
            await store.prepare()
        id_ = str(uuid.uuid4())
        row = {
            "id": id_,
            "user_id": subject,
            "data": {key: value for key, value in data.items() if key != naming},
            "consent_id": consent if isinstance(consent, str) else consent.id,
            "created_at": timestamp(),
        }
        await store.insert(row, consent=consent)
        return id_

    def mapped(self, provider: Provider) -> frozenset[str]:
        """The provider's tables that hold personal data: those of the data map, and the built-in one."""
        name = next((name for name, known in self._databases.items() if known is provider.face), None)
        if name is None:
            return frozenset()
        personal = (dataset.key or dataset.table for dataset in self._data_map.of_database(name) if dataset.personal)
        return frozenset({PERSONAL_DATA, *personal})

    async def note(self, provider: Provider, store: str, action: str, *, subject: object = None) -> None:
        """Write an audit entry of a change that the engine is about to make: it has no log of its own.

        Args:
            provider: whose change it is.
            store: the collection or key pattern, as the data map names it, or another one.
            action: what is to be done.
            subject: whom it is about.
        """
        name = next((name for name, known in self._databases.items() if known is provider.face), provider.name)
        of_database = self._data_map.of_database(name)
        label = next((d.label for d in of_database if (d.key or d.table) == store), f"{name}.{store}")
        await self._audit.record(action, subject=subject, dataset=label)

    # ---- what requests need -----------------------------------------------------------------------------------------

    @property
    def signer(self) -> Signer:
        """Signs certificates in the organisation's name."""
        return self._keyring.signer

    @property
    def ledger_log(self) -> AuditLog:
        """The ledger's audit log."""
        return self._sites[self.ledger_name].log

    @property
    def databases(self) -> Mapping[str, Provider]:
        """Name → provider."""
        return self._databases

    @property
    def datasets(self) -> list[PersonalStore]:
        """Every dataset of the data map, and the built-in tables."""
        return [*self._stores.values(), *self._own.values()]

    def site(self, database: str) -> Site:
        """What Datavern keeps in that database; in the ledger, for one that holds none of Datavern's tables."""
        return self._sites.get(database) or self._sites[self.ledger_name]

    def subject_path(self, provider: Provider, store: str) -> str | None:
        """The path that says whose a record of that store is, as the data map has it; None where it says nothing."""
        name = next((name for name, known in self._databases.items() if known is provider.face), None)
        found = (d.subject for d in self._data_map if d.database == name and d.table == store and d.key is None)
        return next(found, None)

    async def stores(self, also: Collection[str] = ()) -> list[PersonalStore]:
        """Every dataset that is about people, and the built-in tables that are there, or may be.

        Args:
            also: labels of built-in tables that count whether they are there or not.
        """
        stores = [store for store in self._stores.values() if store.dataset.subject is not None]
        for store in self._own.values():
            try:
                there = store.dataset.label in also or await store.exists()
            except ProviderError:
                there = True  # its database cannot be asked now
            if there:
                stores.append(store)
        return stores

    async def _born(self, subject: str, transaction: Transaction | None) -> dt.date | None:
        """A person's birth date, where a fødselsnummer that the data map names tells it.

        A number that fits the rule in force was assigned before 2032 only as long as it is not 2032: from then on one
        may be new, and tells no century.
        """
        if now().year >= _TELLS_NOTHING:
            return None
        for store in self._stores.values():
            dataset = store.dataset
            fields = [name for name, field in dataset.fields.items() if field.kind == "fodselsnummer"]
            if not fields or dataset.subject is None or isinstance(store, RecordStore):
                continue
            own = transaction if transaction is not None and transaction.provider is store.provider else None
            try:
                async for row in store.all_of(subject, transaction=own):
                    for value in (row[name] for name in fields):
                        number = fodselsnummer(str(value)) if value is not None else None
                        if number is not None and number.kind in _BORN and number.birth_date is not None:
                            return number.birth_date
            except (ProviderError, ConfigurationError):
                continue  # it cannot be asked now, or has no table yet: what is not known is not guessed
        return None

    def _store(self, dataset: Dataset) -> PersonalStore:
        provider = self._databases[dataset.database]
        site = self.site(dataset.database)
        parts: dict[str, Any] = {
            "keys": self.keys,
            "life": site.life,
            "log": site.log,
            "consents": self._consents,
            "standing": self.standing,
        }
        records = dataset.database not in self._sites and provider.capabilities.records is not None
        if dataset.database not in self._sites and not records:
            raise CapabilityMissing(
                "datasets", dataset.database, f"datasets.{dataset.name}: the engine {provider.engine} offers none"
            )
        store = (RecordStore if records else PersonalStore)(dataset, provider, **parts)
        store.holds = self._holds
        return store


def _personal_data(database: str) -> Dataset:
    return Dataset(
        OWN_DATASETS + PERSONAL_DATA,
        database=database,
        store=PERSONAL_DATA,
        subject="user_id",
        erasure="delete",
        fields={
            "data": Field(sealed=True),
            "consent_id": Field(),
            "created_at": Field(),
        },
    )


async def _warm(store: PersonalStore) -> None:
    """Read the schema and the lookup keys ahead: the first use may stand in a transaction, where neither belongs."""
    try:
        if await store.exists():
            await store.rows()
    except DatavernError:
        return  # told when the dataset is used, with what to do about it
