"""Privacy, wired together: what a manager with keys gives its callers and its providers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from datavern.audit.log import AuditLog
from datavern.audit.service import Audit
from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    DatavernError,
)
from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.crypto.life import KeyLife
from datavern.privacy.consent.consent import Consents
from datavern.privacy.consent.standing import Standing
from datavern.privacy.datamap.datamap import DataMap
from datavern.privacy.datamap.dataset import Dataset
from datavern.privacy.holds.holds import Holds
from datavern.privacy.journal import tables
from datavern.privacy.journal.journal import Steps
from datavern.privacy.personal.birth import birth_date
from datavern.privacy.personal.built_in import PERSONAL_DATA, built_in, row_of
from datavern.privacy.personal.catalogue import Catalogue
from datavern.privacy.personal.records import RecordStore
from datavern.privacy.personal.store import PersonalStore
from datavern.privacy.requests.requests import SubjectRequests
from datavern.privacy.residency.residency import Residency, Transfer
from datavern.privacy.sealing.rotation import Rotator

if TYPE_CHECKING:
    from datavern.audit.publishing import Publisher
    from datavern.contracts.capabilities import Provider
    from datavern.contracts.services import Gate
    from datavern.crypto.signing import Signer
    from datavern.privacy.consent.consent import Consent
    from datavern.privacy.erasure.completing import Completions
    from datavern.privacy.erasure.derived import Derived
    from datavern.privacy.personal.reads import Reads
    from datavern.privacy.personal.shape import DDL
    from datavern.privacy.retention.run import Retention
    from datavern.privacy.sealing.in_place import InPlace

__all__ = ["Privacy", "Site"]

CONSENT_AGE: Final = 13
"""From which age people consent to information society services themselves (personopplysningsloven § 5)."""


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


class Privacy(Catalogue):
    """Keys, consents, audit, personal data and subject requests over the databases of one manager.

    Args:
        databases: name → provider.
        data_map: which personal data lies where; nothing but the built-in table when None.
        keyring: where the keys are: ``file:keys``.
        ledger: name of the database that holds Datavern's own tables.
        organisation: who is responsible for the data, as it stands on certificates.
        contact: how that one is reached, for the letters to people.
        dpo: its data protection officer, for the letters to people.
        key_copies: where copies of the key store go: a folder; None: beside a ring of files.
        publishers: where the audit log's checkpoints are published.
        require_identity: whether subject requests need it recorded how it was made sure who asks.
        derived: name → what the application made of personal data elsewhere; what is added to it later counts too.
        consent_age: from which age people consent themselves, in years.
        transfers: says where data about people can get outside of the EEA (`Residency.transfers`).

    Attributes:
        keys: the key store.
        ledger: the database that holds Datavern's own tables.
        ledger_name: its name in the manager.
        organisation: as given.
        contact: as given.
        dpo: as given.
        require_identity: as given.
        derived: as given.
        transfers: as given.
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
        contact: str = "",
        dpo: str = "",
        key_copies: Any = None,
        publishers: Sequence[Publisher] = (),
        require_identity: bool = False,
        derived: Mapping[str, Derived] | None = None,
        consent_age: int = CONSENT_AGE,
        transfers: Callable[[], Iterable[Transfer]] = tuple,
    ) -> None:
        super().__init__(databases, data_map if data_map is not None else DataMap())
        self.require_identity = require_identity
        self.derived: Mapping[str, Derived] = {} if derived is None else derived
        self._consent_age = consent_age
        self.transfers = transfers
        self._publishers = publishers
        self._keyring = Keyring.from_url(keyring)
        self.ledger_name = ledger
        self.ledger = databases[ledger]
        self.organisation = organisation
        self.contact, self.dpo = contact, dpo
        self.keys = KeyStore(self._keyring, self.ledger)
        self.keys.rotator = Rotator(self, self._keyring, key_copies)
        self._sites: dict[str, Site] = {}
        self._reads: dict[str, Reads] = {}
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
        self._consents = Consents(
            self.ledger,
            self.keys,
            self.ledger_log,
            age=self._consent_age,
            born=partial(birth_date, self._stores.values()),
        )
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
                self._own[name] = self._store(built_in(name))
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
        row = row_of(data, consent, label=store.dataset.label)
        for place in (provider, self.ledger):
            Residency().validate(store.dataset.classification, place.location)
        if not await store.exists():
            await store.prepare()
        await store.insert(row, consent=consent)
        return str(row["id"])

    async def note(self, provider: Provider, store: str, action: str, *, subject: object = None) -> None:
        """Write an audit entry of a change that the engine is about to make: it has no log of its own.

        Args:
            provider: whose change it is.
            store: the collection or key pattern, as the data map names it, or another one.
            action: what is to be done.
            subject: whom it is about.
        """
        await self._audit.record(action, subject=subject, dataset=self.label_of(provider, store))

    # ---- what requests need -----------------------------------------------------------------------------------------

    @property
    def signer(self) -> Signer:
        """Signs certificates in the organisation's name."""
        return self._keyring.signer

    @property
    def ledger_log(self) -> AuditLog:
        """The ledger's audit log."""
        return self._sites[self.ledger_name].log

    def site(self, database: str) -> Site:
        """What Datavern keeps in that database; in the ledger, for one that holds none of Datavern's tables."""
        return self._sites.get(database) or self._sites[self.ledger_name]

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


async def _warm(store: PersonalStore) -> None:
    """Read the schema and the lookup keys ahead: the first use may stand in a transaction, where neither belongs."""
    try:
        if await store.exists():
            await store.rows()
    except DatavernError:
        return  # told when the dataset is used, with what to do about it
