"""The audit of everything a manager holds: one log in each transactional database, spoken to as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.log import AuditLog
from datavern.audit.pending import Entry, entry_values
from datavern.audit.proof import Proof
from datavern.audit.report import Problem, Report
from datavern.contracts.capabilities import Provider, Session, needs
from datavern.contracts.errors import AuditError, ConfigurationError, LogTampered
from datavern.contracts.subjects import canonical_subject

if TYPE_CHECKING:
    from datavern.crypto.keystore import KeyStore

__all__ = ["Audit"]


class Audit:
    """Record, seal, verify and prove.

    Args:
        logs: name of the database → its log; opened.
        ledger: the database whose log takes what has none of its own.
        keystore: knows the subjects' handles.
    """

    def __init__(self, logs: Mapping[str, AuditLog], ledger: str, keystore: KeyStore) -> None:
        if ledger not in logs:
            raise ConfigurationError(f"audit: the ledger database {ledger} has no audit log")
        self._logs = dict(logs)
        self._of_provider = {log.provider: log for log in logs.values()}
        self._ledger = ledger
        self._keystore = keystore

    @property
    def logs(self) -> Mapping[str, AuditLog]:
        """Name of the database → its log."""
        return dict(self._logs)

    def log(self, database: str | None = None, transaction: Session | None = None) -> AuditLog:
        """The log that an entry of that database, or in that transaction, belongs to.

        An engine without transactions has no log: its entries stand in the ledger's.

        Raises:
            ConfigurationError: the transaction's database has no log, or is another one than `database`.
        """
        if transaction is None:
            return self._logs.get(self._ledger if database is None else database) or self._logs[self._ledger]
        provider = transaction.provider
        for name, log in self._logs.items():
            if log.provider is provider:
                if database not in {None, name}:
                    raise ConfigurationError(f"audit: the transaction is one of {name}, not of {database}")
                return log
        raise ConfigurationError(f"audit: the transaction is one of {provider.name}, which has no audit log here")

    def log_for(self, provider: Provider) -> AuditLog:
        """The log of that very database.

        Raises:
            ConfigurationError: it has none here; says what to do about it.
        """
        log = self._of_provider.get(provider)
        if log is not None:
            return log
        raise ConfigurationError(
            f"{provider.name} has no audit log with the manager that made this entry: put the provider in that "
            "DatabaseManager, or make the entry with the manager that holds it. A database without transactions has "
            "none: db.audit.write(entry) writes to the ledger's log"
        )

    async def entry(
        self,
        action: str,
        *,
        subject: object = None,
        actor: str | None = None,
        dataset: str | None = None,
        details: Mapping[str, Any] | None = None,
        transaction: Session | None = None,
    ) -> Entry:
        """An entry that is written with the change that it tells of: ``provider.execute(…, audit=entry)``.

        Nothing is written here, but that a subject who has no handle yet gets one. The entry is good for one change in
        one of the manager's databases with transactions, through its provider or a transaction of it. An engine
        without transactions can keep no entry with its change: there, `write` the entry first, which says that the
        change is about to be made, into the ledger's log, and make the change when that has returned.

        Args:
            action: what was done: ``case_closed``.
            subject: whom it was about, by id. The log holds a random handle in its place, unlinked at erasure.
            actor: who did it; whoever `datavern.actor` says when None.
            dataset: the dataset's name.
            details: more, as JSON: names of fields and counts, never the data itself.
            transaction: an open transaction of the ledger database, for a handle that has to be made.

        Raises:
            ConfigurationError: the subject id or the details cannot stand in the log.
        """
        handle = None
        if subject is not None:
            handle = await self._keystore.handle(canonical_subject(subject), session=transaction)
        return Entry(self, entry_values(action, handle, actor, dataset, details))

    async def write(self, entry: Entry, *, database: str | None = None, transaction: Session | None = None) -> str:
        """Write an entry by itself: `record` in two steps. It is written once; a second time its id is refused.

        Args:
            entry: made by `entry`.
            database: in whose log; the ledger's when None, and where that database has no log of its own.
            transaction: an open transaction: the entry commits or rolls back with it.

        Returns:
            The entry's id, for `prove`.

        Raises:
            ConfigurationError: database and transaction differ.
            ConstraintViolated: it was written before.
        """
        log = self.log(database, transaction)
        session = needs(log.provider, "session") if transaction is None else transaction
        await session.execute(*entry.statement(log.provider))
        return entry.id

    async def record(
        self,
        action: str,
        *,
        subject: object = None,
        actor: str | None = None,
        dataset: str | None = None,
        details: Mapping[str, Any] | None = None,
        database: str | None = None,
        transaction: Session | None = None,
    ) -> str:
        """Write an entry; not idempotent: each call is one.

        Args:
            action: what was done: ``user_login``.
            subject: whom it was about, by id. The log holds a random handle in its place, unlinked at erasure.
            actor: who did it; whoever `datavern.actor` says when None.
            dataset: the dataset's name.
            details: more, as JSON: names of fields and counts, never the data itself.
            database: in whose log; the ledger's when None.
            transaction: an open transaction: the entry commits or rolls back with it.

        Returns:
            The entry's id, for `prove`.

        Raises:
            ConfigurationError: the subject id or the details cannot stand in the log; database and transaction differ.
        """
        self.log(database, transaction)  # says what is wrong with them before a handle is made
        entry = await self.entry(
            action, subject=subject, actor=actor, dataset=dataset, details=details, transaction=transaction
        )
        return await self.write(entry, database=database, transaction=transaction)

    async def seal(self) -> Checkpoint:
        """Seal every log: see `AuditLog.seal`.

        Returns:
            The ledger's checkpoint, with those of the other logs as its `others`.
        """
        sealed = {name: await log.seal() for name, log in self._logs.items()}
        first = sealed.pop(self._ledger)
        return replace(first, others=tuple(sealed.values()))

    async def verify(self, since: Checkpoint | str | None = None, *, most: int = 100) -> Report:
        """Verify every log: see `AuditLog.verify`.

        Args:
            since: a checkpoint that was kept elsewhere, with its `others`, or its text.
            most: after so many problems in a log it stops looking for more.

        Returns:
            One report of all: problems name their log where there are several, and `rollback_checked` says that a
            checkpoint kept elsewhere was compared for each.

        Raises:
            LogTampered: `since` holds a checkpoint of a log that is not here, or that no trusted key signed.
        """
        kept = self._kept(since)
        reports = {name: await log.verify(kept.get(log.origin), most=most) for name, log in self._logs.items()}
        if len(reports) == 1:
            return reports[self._ledger]
        first = reports[self._ledger].checkpoint
        others = (r.checkpoint for name, r in reports.items() if name != self._ledger)
        return Report(
            ok=all(report.ok for report in reports.values()),
            entries=sum(report.entries for report in reports.values()),
            problems=tuple(_named(problem, name) for name, report in reports.items() for problem in report.problems),
            unsealed=sum(report.unsealed for report in reports.values()),
            rollback_checked=all(report.rollback_checked for report in reports.values()),
            checkpoint=None if first is None else replace(first, others=tuple(c for c in others if c is not None)),
        )

    def _kept(self, since: Checkpoint | str | None) -> dict[str, Checkpoint]:
        if since is None:
            return {}
        first = Checkpoint.read(since) if isinstance(since, str) else since
        kept = {c.origin: replace(c, others=()) for c in (first, *first.others)}
        origins = {log.origin for log in self._logs.values()}
        for origin in kept:
            if origin not in origins:
                raise LogTampered(None, f"the checkpoint is of another log: {origin}")
        return kept

    async def prove(self, entry_id: str) -> Proof:
        """The proof that an entry is in its log, whichever that is: see `AuditLog.prove`.

        Raises:
            AuditError: there is no such entry, or it is not sealed yet.
            LogTampered: the entry or its checkpoint is not as it was sealed.
        """
        for log in self._logs.values():
            if await log.has(entry_id):
                return await log.prove(entry_id)
        raise AuditError("no log has an entry of that id")


def _named(problem: Problem, log: str) -> Problem:
    return replace(problem, log=log)
