"""The audit of everything a manager holds: one log in each transactional database, spoken to as one."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.log import AuditLog
from datavern.audit.pending import Entry, entry_values
from datavern.audit.proof import Proof
from datavern.audit.report import Problem, Report
from datavern.contracts.capabilities import Provider, Session, needs
from datavern.contracts.errors import AuditError, ConfigurationError, DatavernError, LogTampered
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import timestamp

if TYPE_CHECKING:
    from datavern.audit.publishing import Publisher
    from datavern.audit.truncation import Truncation
    from datavern.crypto.keystore import KeyStore

__all__ = ["Audit"]

_LOG = logging.getLogger("datavern.audit")


class Audit:
    """Record, seal, verify and prove.

    Args:
        logs: name of the database → its log; opened.
        ledger: the database whose log takes what has none of its own.
        keystore: knows the subjects' handles.
        publishers: where checkpoints are copied to, out of reach of whoever can change the logs.
    """

    def __init__(
        self,
        logs: Mapping[str, AuditLog],
        ledger: str,
        keystore: KeyStore,
        publishers: Sequence[Publisher] = (),
    ) -> None:
        if ledger not in logs:
            raise ConfigurationError(f"audit: the ledger database {ledger} has no audit log")
        self._logs = dict(logs)
        self._of_provider = {log.provider: log for log in logs.values()}
        self._ledger = ledger
        self._keystore = keystore
        self._publishers = tuple(publishers)

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
        handle = None if subject is None else self._keystore.known_handle(subject)
        if handle is None and subject is not None:
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
        """Seal every log (see `AuditLog.seal`), and publish the checkpoints.

        Each log is compared with what was published of it before anything is signed on top.

        Returns:
            The ledger's checkpoint, with those of the other logs as its `others`.

        Raises:
            LogTampered: a log is not the one, or goes less far than the one, that was sealed or published.
            AuditError: a publisher cannot be read, so nothing was sealed; or not be written, and what is sealed is
                published by the next call.
        """
        sealed: dict[str, Checkpoint] = {}
        failed = ""
        for name, log in self._logs.items():
            sealed[name] = await log.seal(published=await self._published(log))
        for name, checkpoint in sealed.items():
            for publisher in self._elsewhere(self._logs[name]):
                try:
                    await publisher.publish(checkpoint)
                except LogTampered:
                    raise
                except DatavernError as error:
                    failed = failed or str(error)
        if failed:
            raise AuditError(f"sealed, and not published: {failed}. The next sealing publishes it")
        first = sealed.pop(self._ledger)
        return replace(first, others=tuple(sealed.values()))

    async def keep_sealed(self, every: float = 60.0) -> NoReturn:
        """Seal and publish again and again, for a task of its own: ``asyncio.create_task(db.audit.keep_sealed())``.

        Several processes may do so at once: the moments are drawn at random around `every`, and what one has sealed
        the others find sealed. A database or publisher that cannot be reached is told to the log ``datavern.audit``,
        once until it can be again, and tried at the next turn.

        Args:
            every: seconds between two sealings.

        Raises:
            LogTampered: a log is not what was sealed or published. Nothing is sealed any more.
            ConfigurationError: `every` is no length of time.
        """
        if not every > 0:
            raise ConfigurationError("every: expected seconds, more than 0")
        told = ""
        while True:
            await asyncio.sleep(every * random.uniform(0.75, 1.25))  # noqa: S311  (nothing secret hangs on it)
            try:
                await self.seal()
                told = ""
            except LogTampered:
                raise
            except DatavernError as error:
                if str(error) != told:
                    told = str(error)
                    _LOG.warning("the audit log could not be sealed or published; it is tried again: %s", told)

    def _elsewhere(self, log: AuditLog) -> Iterator[Publisher]:
        """The publishers that are not the log's own database: what is set back together proves nothing."""
        return (one for one in self._publishers if getattr(one, "provider", None) is not log.provider)

    async def _published(self, log: AuditLog) -> Checkpoint | None:
        """The published checkpoint of a log that covers most, verified; None when there is none."""
        found: Checkpoint | None = None
        for publisher in self._elsewhere(log):
            checkpoint = await publisher.latest(log.origin)
            if checkpoint is not None:
                checkpoint = checkpoint.verified(log.verifiers, origin=log.origin)
                if found is None or checkpoint.size > found.size:
                    found = checkpoint
        return found

    async def truncate(self, before: dt.datetime) -> dict[str, Truncation]:
        """Remove entries of every log that were sealed before a moment: see `AuditLog.truncate`. It is recorded.

        Returns:
            Name of the database → the signed record of all that was ever removed of its log.

        Raises:
            ConfigurationError: `before` has no time zone.
            LogTampered: a range is not as it was sealed. It and all behind it stay.
        """
        found: dict[str, Truncation] = {}
        for name, log in self._logs.items():
            earlier = await log.truncated()
            record = await log.truncate(before)
            if record is None:
                continue
            found[name] = record
            removed = record.size - (0 if earlier is None else earlier.size)
            if removed:
                details = {"entries": removed, "of": record.size, "sealed_before": timestamp(before)}
                await self.record("audit.truncate", details=details, database=name)
        return found

    async def export(self, database: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Every sealed entry of a log, or of all of them, as JSON objects: see `AuditLog.export`.

        Raises:
            ConfigurationError: no database of that name has a log.
        """
        if database is not None and database not in self._logs:
            raise ConfigurationError(f"audit: no log is in {database}; there are: {', '.join(self._logs)}")
        for name, log in self._logs.items():
            if database in {None, name}:
                async for line in log.export():
                    yield {"log": name, **line}

    async def verify(
        self, since: Checkpoint | str | None = None, *, most: int = 100, sample: int | None = None
    ) -> Report:
        """Verify every log: see `AuditLog.verify`.

        Args:
            since: a checkpoint that was kept elsewhere, with its `others`, or its text. A log that it says nothing of
                is compared with what was published of it.
            most: after so many problems in a log it stops looking for more.
            sample: look at so many entries of each log, drawn at random, instead of all of them.

        Returns:
            One report of all: problems name their log where there are several, and `rollback_checked` says that a
            checkpoint kept elsewhere was compared for each.

        Raises:
            LogTampered: `since` holds a checkpoint of a log that is not here, or that no trusted key signed.
            AuditError: a publisher cannot be read.
        """
        kept = self._kept(since)
        reports: dict[str, Report] = {}
        for name, log in self._logs.items():
            given = kept.get(log.origin) or await self._published(log)
            reports[name] = await log.verify(given, most=most, sample=sample)
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
            truncated=sum(report.truncated for report in reports.values()),
            sampled=None if sample is None else sum(report.sampled or 0 for report in reports.values()),
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

    async def prove(self, entry_id: str, *, within: Checkpoint | str | None = None) -> Proof:
        """The proof that an entry is in its log, whichever that is: see `AuditLog.prove`.

        Args:
            entry_id: the entry's.
            within: a checkpoint that whoever is to be convinced has kept; the one that first covered it when None.

        Raises:
            AuditError: there is no such entry, it is not sealed yet, or `within` is older than it.
            LogTampered: the entry or its checkpoint is not as it was sealed, or `within` is none of that log.
        """
        for log in self._logs.values():
            if await log.has(entry_id):
                return await log.prove(entry_id, within=within)
        raise AuditError("no log has an entry of that id")


def _named(problem: Problem, log: str) -> Problem:
    return replace(problem, log=log)
