"""The audit log of one database."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from datavern.audit.checkpoint import Checkpoint, Signs, kept_of
from datavern.audit.entry import GIVEN
from datavern.audit.exporting import export
from datavern.audit.pending import Entry, Values, entry_values
from datavern.audit.proof import Proof
from datavern.audit.proving import prove
from datavern.audit.ranges import place_of
from datavern.audit.report import Report
from datavern.audit.sampling import verify_sample
from datavern.audit.sealer import Era, begin_era, seal
from datavern.audit.tables import START, at_place, log_of
from datavern.audit.truncation import Truncation, last_truncation, truncate
from datavern.audit.verifier import verify_log
from datavern.contracts.capabilities import Provider, Session, needs
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Row

__all__ = ["AuditLog"]

_PAGE = 1000


class AuditLog:
    """An append-only table, sealed into a Merkle tree. FORMAT.md describes it.

    Writing is an ordinary insert: no lock and no chain to wait for. Any number of processes may write, seal and verify
    the same log at once.

    Args:
        provider: a database with transactions.
        signer: signs the checkpoints.
        origin: names this log in its checkpoints, for ever: ``datavern/<ring>/<database>``.
        verifiers: further public keys that are trusted: those that signed earlier.
    """

    def __init__(self, provider: Provider, signer: Signs, *, origin: str, verifiers: Iterable[str] = ()) -> None:
        self._provider = provider
        self._signer = signer
        self.origin = origin
        self.verifiers: tuple[str, ...] = (signer.verifier, *verifiers)
        self._by_default = False
        self._inserts: dict[str | None, tuple[str, Callable[[Values], Sequence[Any]] | None]] = {}

    @property
    def provider(self) -> Provider:
        """The database that holds the log."""
        return self._provider

    async def open(self) -> None:
        """Make the tables, and begin a new era if the data was brought to another server. Idempotent.

        Raises:
            CapabilityMissing: the engine has no transactions, or cannot hold Datavern's own tables.
        """
        needs(self._provider, "transactions")
        ledger = needs(self._provider, "ledger")
        await ledger.create_tables(log_of(ledger).metadata)
        self._begun(await begin_era(self._provider, opening=True))

    def _begun(self, era: Era) -> None:
        if era.by_default != self._by_default:
            self._by_default = era.by_default
            self._inserts.clear()

    def entry(
        self,
        action: str,
        *,
        handle: str | None = None,
        actor: str | None = None,
        dataset: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Entry:
        """An entry to be written with the change that it tells of: ``provider.execute(…, audit=entry)``.

        Args and errors are those of `append`.
        """
        return Entry(self, entry_values(action, handle, actor, dataset, details))

    def log_for(self, provider: Provider) -> AuditLog:
        """Itself, for its own database.

        Raises:
            ConfigurationError: it is another database's.
        """
        if provider is self._provider:
            return self
        raise ConfigurationError(f"the audit entry belongs into the log of {self._provider.name}, not {provider.name}")

    def insert(self, values: Values, *, source: str | None = None) -> tuple[str, Sequence[Any]]:
        """The insert of an entry, and its parameters.

        Args:
            values: its columns, as `entry_values` makes them.
            source: name of a relation: the entry is written once for each of its rows.
        """
        insert = self._inserts.get(source)
        if insert is None:
            ledger = needs(self._provider, "ledger")
            statement = log_of(ledger).insert(source=source, by_default=self._by_default)
            compiled = statement.compiled(ledger.dialect)
            places = [GIVEN.index(name) for name in compiled.names]
            insert = self._inserts[source] = (
                compiled.sql,
                None if places == [*range(len(GIVEN))] else itemgetter(*places),
            )
        sql, in_order = insert
        return sql, values if in_order is None else in_order(values)

    async def append(
        self,
        session: Session,
        *,
        action: str,
        handle: str | None = None,
        actor: str | None = None,
        dataset: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> str:
        """Write an entry in the caller's transaction: it commits or rolls back with it.

        Args:
            session: an open transaction of this database, or its provider for a transaction of the entry's own.
            action: what was done: ``user_login``.
            handle: the subject's handle (`KeyStore.handle`), never the subject id itself.
            actor: who did it; whoever `datavern.actor` says when None.
            dataset: the dataset's name.
            details: more, as JSON: names of fields and counts, never the data itself.

        Returns:
            The entry's id.

        Raises:
            ConfigurationError: something in it may not stand in the log (a fødselsnummer, what is not JSON).
        """
        values = entry_values(action, handle, actor, dataset, details)
        await session.execute(*self.insert(values))
        return values[0]

    async def append_many(self, session: Session, entries: Sequence[Mapping[str, Any]]) -> list[str]:
        """Write several entries, all or none, in their order: each as the keyword arguments of `append`.

        Returns:
            Their ids, in order.
        """
        if not entries:
            return []
        ledger = needs(self._provider, "ledger")
        rows = [
            entry_values(e["action"], e.get("handle"), e.get("actor"), e.get("dataset"), e.get("details"))
            for e in entries
        ]
        named = (dict(zip(GIVEN, row, strict=True)) for row in rows)
        insert = log_of(ledger).insert(by_default=self._by_default)
        await session.execute_many(*insert.bind_many(ledger.dialect, named))
        return [row[0] for row in rows]

    async def seal(self, *, published: Checkpoint | None = None) -> Checkpoint:
        """Cover every settled entry with a signed checkpoint, and give the last one.

        With nothing new to cover that is the one that was last; the log's first may be of no entries at all. Safe in
        several processes at once, and after a failure simply to be called again.

        Args:
            published: a checkpoint that was kept elsewhere, and read before this was called: the log is compared.

        Raises:
            LogTampered: the last checkpoint is not as it was signed, `published` is none of this log, or the log is
                not, or goes less far than, the one that it covers. Nothing is signed on top of it.
        """
        if published is not None:
            published = published.verified(self.verifiers, origin=self.origin)
        self._begun(era := await begin_era(self._provider))
        return await seal(
            self._provider, self._signer, origin=self.origin, verifiers=self.verifiers, published=published, era=era
        )

    async def truncate(self, before: dt.datetime) -> Truncation | None:
        """Remove the entries that were sealed before a moment; the record of all that was ever removed: see `truncate`.

        Raises:
            ConfigurationError: `before` has no time zone.
            LogTampered: a range is not as it was sealed. It and all behind it stay.
        """
        return await truncate(self._provider, self._signer, origin=self.origin, verifiers=self.verifiers, before=before)

    async def truncated(self) -> Truncation | None:
        """The record of what was ever removed, or None.

        Raises:
            LogTampered: it is not as it was signed.
        """
        return await last_truncation(self._provider, self.verifiers, self.origin)

    def export(self) -> AsyncIterator[dict[str, Any]]:
        """Every entry in order, and the checkpoint that covers them, as JSON objects: see `export`."""
        return export(self._provider, origin=self.origin, verifiers=self.verifiers)

    async def verify(
        self, since: Checkpoint | str | None = None, *, most: int = 100, sample: int | None = None
    ) -> Report:
        """Compare every sealed entry with what was signed (see `verify_log`), or some of them (see `verify_sample`).

        Args:
            since: a checkpoint that was kept elsewhere, or its note: finds a log that was set back as a whole.
            most: after so many problems it stops looking for more.
            sample: look at so many entries, drawn at random, instead of all of them.

        Raises:
            LogTampered: `since` is no checkpoint of this log that a trusted key signed.
        """
        kept = None if since is None else kept_of(since, self.verifiers, self.origin)
        if sample is not None:
            if sample < 1:
                raise ConfigurationError(f"sample is {sample}: expected how many entries to look at, 1 or more")
            return await verify_sample(
                self._provider, origin=self.origin, verifiers=self.verifiers, entries=sample, since=kept
            )
        return await verify_log(self._provider, origin=self.origin, verifiers=self.verifiers, since=kept, most=most)

    async def entries(self) -> AsyncIterator[Row]:
        """Every entry that is there, sealed or not, in the log's order; in constant memory. Nothing is verified."""
        ledger = needs(self._provider, "ledger")
        page, place = log_of(ledger).page, START
        while True:
            bound = page.bind(ledger.dialect, **at_place(place), most=_PAGE)
            rows = await needs(self._provider, "session").query(*bound)
            for row in rows:
                yield row
            if len(rows) < _PAGE:
                return
            place = place_of(rows[-1])

    async def entry_of(self, entry_id: str) -> Row | None:
        """The entry of that id, or None. Nothing is verified."""
        ledger = needs(self._provider, "ledger")
        query = log_of(ledger).by_id.bind(ledger.dialect, entry_id=entry_id)
        return await needs(self._provider, "session").query_one(*query)

    async def has(self, entry_id: str) -> bool:
        """Whether an entry of that id stands in the log."""
        return await self.entry_of(entry_id) is not None

    async def prove(self, entry_id: str, *, within: Checkpoint | str | None = None) -> Proof:
        """The proof that an entry is in the log, in the checkpoint that first covered it or in `within`: see `prove`.

        Args:
            entry_id: the entry's.
            within: a checkpoint that whoever is to be convinced has kept, or its note.

        Raises:
            AuditError: there is no such entry, it is not sealed yet, or `within` is older than it.
            LogTampered: the entry or its checkpoint is not as it was sealed, or `within` is none of this log.
        """
        kept = None if within is None else kept_of(within, self.verifiers, self.origin)
        return await prove(self._provider, entry_id, origin=self.origin, verifiers=self.verifiers, within=kept)
