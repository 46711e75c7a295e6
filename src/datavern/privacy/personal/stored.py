"""The rows of a dataset where they stand: its table, its keys, and what a write or a read needs to know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from datavern.contracts.capabilities import Transaction, needs
from datavern.contracts.errors import ConfigurationError, PrivacyError, RestoreForbidden
from datavern.contracts.uses import current_purpose
from datavern.privacy.consent.checks import rules_of
from datavern.privacy.datamap.dataset import ERASED_AT, LOOKUP, RETAINED_UNTIL, ROW_TAG, Dataset
from datavern.privacy.personal.rows import Rows
from datavern.privacy.personal.shape import DDL, shape_of

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.capabilities import Provider, Session
    from datavern.contracts.stores import Store, Subjects
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.life import KeyLife
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.consent.consent import Consents
    from datavern.privacy.consent.standing import Standing
    from datavern.privacy.holds.grips import Grip
    from datavern.privacy.holds.holds import Holds
    from datavern.privacy.links.links import Link

__all__ = ["StoredRows"]


class StoredRows:
    """A dataset's table, and its keys: see `datavern.privacy.personal.store.PersonalStore`, which is made of this."""

    __slots__ = (
        "_asks",
        "_behind",
        "_consents",
        "_keys",
        "_life",
        "_loaded",
        "_log",
        "_of_nobody",
        "_provider",
        "_purposes",
        "_rules",
        "_standing",
        "_table",
        "dataset",
        "holds",
        "led",
        "link",
    )

    def __init__(
        self,
        dataset: Dataset,
        provider: Provider,
        *,
        keys: KeyStore,
        life: KeyLife,
        log: AuditLog,
        consents: Consents,
        standing: Standing,
    ) -> None:
        self.dataset = dataset
        self.link: Link | None = None
        self.led: list[Link] = []  # of those whose rows are found through these
        self._provider = provider
        self._keys = keys
        self._life = life
        self._log = log
        self._consents = consents
        self._table = dataset.table
        self._purposes = dataset.consent_purposes
        self._rules = rules_of(dataset)
        self._asks = dataset.require_consent == "read"
        self._standing = standing
        self._loaded: Rows | None = None
        self._behind = ""
        self._of_nobody: DataKey
        self.holds: Holds | None = None  # the legal holds, where a manager keeps some

    _kind: ClassVar[type[Rows]] = Rows

    def __repr__(self) -> str:
        return f"PersonalStore({self.dataset.label})"

    @property
    def provider(self) -> Provider:
        """The database that the rows are in."""
        return self._provider

    @property
    def subjects(self) -> Subjects:
        """The engine's hands in it; where its rows name no person themselves, they follow what they name."""
        found = needs(self._provider, "subjects")
        return found if self.link is None else self.link.hands(found)

    async def marked(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Rows as they are stored, in which `Rows.subject_of` finds whose they are."""
        return found if self.link is None else await self.link.marked(found, transaction)

    async def keep_led(
        self, found: Sequence[Mapping[str, Any]], changes: Mapping[str, Any] | None, transaction: Transaction | None
    ) -> None:
        """Refuse a change of rows after which nobody would find those that lead to them: `Link.check_stays`."""
        for link in self.led:
            await link.check_stays(found, changes, transaction)

    async def leads(self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None) -> list[Grip | None]:
        """Which rows that stay would be found by nobody without each of these."""
        gripped: list[Grip | None] = [None] * len(found)
        for link in self.led:
            leads = await link.leads(found, transaction)
            gripped = [grip or lead for grip, lead in zip(gripped, leads, strict=True)]
        return gripped

    async def is_about(self, row: Mapping[str, Any], person: str) -> bool:
        """Whether a row that was found for a person is that very person's."""
        return (await self.rows()).is_of(row, person)

    def shut(self, reason: str) -> None:
        """Refuse to read and write, for that reason; empty: no longer. Erasures go on."""
        self._behind = reason

    def _check_open(self) -> None:
        if self._behind:
            raise RestoreForbidden(self._behind)

    # ---- the table --------------------------------------------------------------------------------------------------

    async def prepare(self) -> DDL:
        """Make the table fit the data map: what is missing is made, nothing is dropped or retyped. Idempotent.

        Raises:
            ConfigurationError: a column is there with a type that cannot hold what it must.
        """
        subjects = self.subjects
        ran = await subjects.prepare(shape_of(self.dataset, await subjects.describe(self._table)))
        self._loaded = None
        await self.rows()
        return DDL(ran)

    async def exists(self) -> bool:
        """Whether there is such a table."""
        subjects = self.subjects
        return self._loaded is not None or await subjects.describe(self._table) is not None

    async def rows(self, transaction: Transaction | None = None, *, fresh: bool = False) -> Rows:
        """How the rows stand in the table: read once from the live schema, or anew when it must be `fresh`.

        Raises:
            ConfigurationError: there is no such table, or it lacks a column; `prepare` makes it.
            RestoreForbidden: the database was restored, and has not heard of every erasure since.
        """
        loaded = self._loaded
        if not fresh:
            self._check_open()
        if loaded is not None and not fresh:
            if loaded.seen == self._keys.lookups_seen:
                return loaded
            self._loaded = await self._rows(loaded.store)
            return self._loaded
        dataset = self.dataset
        store = await self.subjects.describe(self._table, transaction=transaction)
        if store is None:
            raise ConfigurationError(
                f'{dataset.database} has no table {self._table}: await db.prepare("{dataset.name}") makes it'
            )
        rows = await self._rows(store)
        if dataset.subject is None:
            self._of_nobody = await self._keys.dataset_key(dataset.name)
        self._loaded = rows
        return rows

    async def _rows(self, store: Store) -> Rows:
        keys, dataset = self._keys, self.dataset
        while True:
            seen = keys.lookups_seen
            names = dict.fromkeys(dataset.indexes.values())
            lookup_keys = {name: await keys.lookup_keys(dataset.name, name) for name in names}
            if seen == keys.lookups_seen:
                break
        if self.link is None:
            plain = self._kind(dataset, store, keys, lookup_keys, seen=seen)
            plain.led = tuple(link.column for link in self.led)
            return plain
        rows = self.link.kind_of_rows(self._kind)(dataset, store, keys, lookup_keys, seen=seen)
        rows.link = self.link
        rows.led = tuple(link.column for link in self.led)
        return rows

    def _ready(self) -> Rows | None:
        """How the rows stand, where it is known, and no rotation has changed it since."""
        loaded = self._loaded
        if self._behind:
            return None
        return loaded if loaded is not None and loaded.seen == self._keys.lookups_seen else None

    async def _renewed(self, transaction: Transaction | None = None) -> Rows:
        """The same, when a write found its lookup key ended by a rotation that this process had not heard of."""
        await self._keys.heard(at_once=True)
        return await self.rows(transaction)

    async def whole(self) -> None:
        """Refuse while a column is sealed in place: only what this store reads and writes knows both places.

        Raises:
            ConfigurationError: one is.
        """
        aside = (self._ready() or await self.rows()).aside
        if aside:
            raise ConfigurationError(
                f"{self.dataset.label}: {', '.join(aside)} is being sealed in place: until that has ended, read and "
                "write through db.personal"
            )

    @property
    def keys(self) -> KeyStore:
        """The key store."""
        return self._keys

    @property
    def of_nobody(self) -> DataKey:
        """The key of a dataset that is about nobody."""
        return self._of_nobody

    async def note(self, action: str, details: Mapping[str, Any], tx: Session) -> None:
        """An audit entry about rows of several people."""
        await self._log.append(tx, action=action, dataset=self.dataset.label, details=details)

    async def index_of(self, field: str, value: Any) -> tuple[bytes, ...]:
        """The lookup index of a value of a field; while lookup keys are renewed, under each key that rows may have.

        Raises:
            ConfigurationError: the field has none, or the value is not of its kind.
        """
        where = (await self.rows()).where_fields({field: value})
        found: Any = where[field + LOOKUP]
        return found if isinstance(found, tuple) else (found,)

    def own_columns(self) -> frozenset[str]:
        """The columns that are Datavern's to write."""
        return frozenset({ROW_TAG, ERASED_AT, RETAINED_UNTIL, *self.dataset.indexes})

    def columns_of_a_write(self) -> tuple[str, ...]:
        """What is read of a row before it is changed."""
        dataset = self.dataset
        subject = () if dataset.subject is None else (dataset.subject,)
        led = (link.column for link in self.led)
        return tuple(dict.fromkeys((*dataset.keys, *subject, *dataset.sealed, *led, ROW_TAG, RETAINED_UNTIL)))

    # ---- what may be used -------------------------------------------------------------------------------------------

    def tags_of(self, rows: Rows, row: Mapping[str, Any]) -> tuple[bytes, ...]:
        """The keyed tags of the people whom a row is about."""
        subject = rows.subject_of(row)
        return () if subject is None else (self._keys.subject_tag(subject),)

    def _needed(self) -> tuple[str, ...]:
        """The purposes that need a consent now: all of the dataset's that rest on one, or what somebody named.

        Raises:
            PrivacyError: what was named is no purpose of the dataset (GDPR Art. 5(1)(b)).
        """
        named = current_purpose()
        dataset = self.dataset
        if named is None or not dataset.purposes:
            return self._purposes
        if named not in dataset.purposes:
            raise PrivacyError(
                f"{dataset.label}: is not for {named}; its purposes are {', '.join(dataset.purposes)} (GDPR Art. "
                "5(1)(b))"
            )
        return (named,) if named in self._purposes else ()

    async def admit(
        self, tags: Iterable[bytes], transaction: Transaction | None = None, *, writing: bool = True
    ) -> None:
        """Let a use of these people's data through, or refuse it: see `datavern.privacy.consent.standing`."""
        await self._standing.admit(
            self.dataset, tags, writing=writing, consents=self._consents, log=self._log, transaction=transaction
        )

    async def _admit_rows(
        self, rows: Rows, found: Iterable[Mapping[str, Any]], transaction: Transaction | None, *, writing: bool = True
    ) -> None:
        """The same for the people of rows."""
        standing = self._standing
        if standing.until <= monotonic():
            await standing.ask(transaction)
        if standing.marks:
            found = await self.marked([*found], transaction)
            await self.admit([tag for row in found for tag in self.tags_of(rows, row)], transaction, writing=writing)

    def living(self) -> dict[str, Any]:
        """The condition for rows that are not marked as erased."""
        return {ERASED_AT: None} if self.dataset.erasure == "soft" else {}
