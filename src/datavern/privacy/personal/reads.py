"""Who read what about whom: reads of personal data, audited without drowning the log (``audit_reads = true``)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import DatavernError
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, timestamp

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Reads", "watched"]

_LOG = logging.getLogger("datavern.audit")
_WINDOW: Final = 60.0
_MOST: Final = 100
"""So many people, read in one call, get an entry each; more of them get one together."""

Person = str | bytes | None
"""A subject's id, or the keyed tag by which a record names one that is not in the clear."""
Read = tuple[str | None, str, Person]
"""Actor, dataset and subject."""


class Reads:
    """What was read lately. One for each audit log.

    The first time in a minute that somebody reads something of a person in a dataset, an entry is written before the
    row is handed out: when it cannot be written, nothing is handed out (of `of` it says 0 rows: how many there are is
    counted as they come). What the same actor reads of the same person
    until the minute ends is counted, and the count written at its end. What is read within an open transaction is
    counted alone: the transaction may be read only, or may yet be undone, and the row was read all the same.

    Args:
        log: where the entries go.
        keys: knows the subjects' handles.
        window: seconds that reads are gathered for.
    """

    def __init__(self, log: AuditLog, keys: KeyStore, *, window: float = _WINDOW) -> None:
        self._log = log
        self._keys = keys
        self._window = window
        self._since = ""
        self._told: set[Read] = set()  # of this minute; another minute has another set
        self._again: Counter[Read] = Counter()
        self._ending: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def note(self, dataset: str, rows: Mapping[Person, int], transaction: Transaction | None = None) -> None:
        """So many rows of these people are about to be handed out; 0: somebody was looked for.

        Raises:
            ProviderError: the log cannot be written.
        """
        actor = current_actor()
        reads = {(actor, dataset, subject): count for subject, count in rows.items()}
        self._begin()
        told = self._told
        new = {read: count for read, count in reads.items() if transaction is None and read not in told}
        self._again.update({read: count for read, count in reads.items() if read not in new})
        if new:
            await self._write(actor, dataset, new, {})
            if len(new) <= _MOST:  # an entry of many names nobody: who is read alone after it is told of then
                told.update(new)

    def count(self, dataset: str, subject: str | None) -> None:
        """One row more of a person is handed out: counted, and written at the end of the minute. No I/O."""
        self._begin()
        self._again[current_actor(), dataset, subject] += 1

    def _begin(self) -> None:
        if self._ending is None or self._ending.done():
            self._since = timestamp()
            self._ending = asyncio.get_running_loop().create_task(self._end_soon())

    async def _end_soon(self) -> None:
        told = False
        while not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._window)
                return
            try:
                await self.end()
            except DatavernError as error:
                if not told:
                    told = True
                    _LOG.warning("reads of personal data could not be written to the audit log yet: %s", error)
            else:
                told = False
                if not self._told and not self._again:  # and nothing was read while that was written
                    return

    async def end(self) -> None:
        """End the minute: write what was counted. What cannot be written is kept for the next.

        Raises:
            ProviderError: the log cannot be written.
        """
        since, self._since = self._since, timestamp()
        self._told = set()
        again, self._again = self._again, Counter()
        together: dict[tuple[str | None, str], dict[Read, int]] = {}
        for read, rows in again.items():
            if rows:
                together.setdefault(read[:2], {})[read] = rows
        while together:
            (actor, dataset), reads = next(iter(together.items()))
            try:
                await self._write(actor, dataset, reads, {"since": since})
            except BaseException:
                for kept in together.values():
                    self._again.update(kept)
                self._since = since
                raise
            del together[actor, dataset]

    async def _write(
        self, actor: str | None, dataset: str, reads: Mapping[Read, int], details: Mapping[str, Any]
    ) -> None:
        said = {"action": "read", "actor": actor, "dataset": dataset}
        if len(reads) > _MOST:
            whole = {**details, "rows": sum(reads.values()), "subjects": len(reads)}
            entries = [{**said, "details": whole}]
        else:
            entries = [
                {**said, "handle": await self._handle(subject), "details": {**details, "rows": rows}}
                for (_, _, subject), rows in reads.items()
            ]
        await self._log.append_many(needs(self._log.provider, "session"), entries)

    async def _handle(self, subject: Person) -> str | None:
        if isinstance(subject, bytes):
            return await self._keys.handle_of(subject)
        return None if subject is None else await self._keys.handle(subject, create=False)

    async def close(self) -> None:
        """Write what was counted, and end. What cannot be written is told to the log ``datavern.audit``."""
        ending, self._ending = self._ending, None
        if ending is not None:  # not cancelled: what it writes at this moment would be written again
            self._closing.set()
            try:
                await asyncio.wait((ending,))
            finally:
                self._closing.clear()
        try:
            await self.end()
        except DatavernError as error:
            _LOG.warning("%d reads of personal data are not in the audit log: %s", self._again.total(), error)


def watched(store: PersonalStore, reads: Reads) -> PersonalStore:
    """A store whose reads are audited; everything else is the store's own."""
    from datavern.privacy.personal.records import RecordStore  # noqa: PLC0415  (loaded by then)

    return cast("PersonalStore", (_WatchedRecords if isinstance(store, RecordStore) else _Watched)(store, reads))


class _Watched:
    """See `watched`."""

    __slots__ = ("_reads", "_store")

    def __init__(self, store: PersonalStore, reads: Reads) -> None:
        self._store = store
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __repr__(self) -> str:
        return repr(self._store)

    async def _handed_out(self, rows: Sequence[Mapping[str, Any]], transaction: Transaction | None) -> None:
        if rows:
            plan = await self._store.rows(transaction)
            people: Counter[Person] = Counter(
                plan.subject_of(row) for row in await self._store.marked(rows, transaction)
            )
            await self._reads.note(self._store.dataset.label, people, transaction)

    async def get(self, key: Any, *, transaction: Transaction | None = None) -> dict[str, Any] | None:
        row = await self._store.get(key, transaction=transaction)
        if row is not None:
            await self._handed_out([row], transaction)
        return row

    async def of(self, subject: object, *, transaction: Transaction | None = None) -> AsyncIterator[dict[str, Any]]:
        person, label = canonical_subject(subject), self._store.dataset.label
        if transaction is None:  # before the stream takes a connection: in a pool of one there is no other
            await self._reads.note(label, {person: 0})
        async for row in self._store.of(subject, transaction=transaction):
            self._reads.count(label, person)
            yield row

    async def find(self, *args: Any, transaction: Transaction | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        rows = await self._store.find(*args, transaction=transaction, **kwargs)
        await self._handed_out(rows, transaction)
        return rows

    async def starts_with(
        self, *args: Any, transaction: Transaction | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        rows = await self._store.starts_with(*args, transaction=transaction, **kwargs)
        await self._handed_out(rows, transaction)
        return rows

    async def contains(self, *args: Any, transaction: Transaction | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        rows = await self._store.contains(*args, transaction=transaction, **kwargs)
        await self._handed_out(rows, transaction)
        return rows

    async def open(self, rows: Iterable[Any], *, transaction: Transaction | None = None) -> list[dict[str, Any]]:
        opened = await self._store.open(rows, transaction=transaction)
        await self._handed_out(opened, transaction)
        return opened

    async def open_placed(
        self, found: Sequence[Sequence[Any]], columns: Mapping[int, str], transaction: Transaction | None = None
    ) -> list[Sequence[Any]]:
        """For SQLAlchemy: counted alone, since these rows are read in an open transaction, or hold a connection."""
        opened = await self._store.open_placed(found, columns, transaction)
        plan, label = await self._store.rows(transaction), self._store.dataset.label
        named = [{name: row[place] for place, name in columns.items()} for row in found]
        for row in await self._store.marked(named, transaction):
            self._reads.count(label, plan.subject_of(row))
        return opened


class _WatchedRecords(_Watched):
    """The same of documents, keys and values: opened, some of them do not say any more whose they are."""

    __slots__ = ()

    async def _handed_out(self, rows: Sequence[Mapping[str, Any]], transaction: Transaction | None) -> None:
        if rows:
            plan = await self._store.rows(transaction)
            people: Counter[Person] = Counter()
            for row in await self._store.marked(rows, transaction):
                people.update(self._store.tags_of(plan, row) or (None,))
            await self._reads.note(self._store.dataset.label, people, transaction)

    async def get(self, key: Any, *, transaction: Transaction | None = None) -> dict[str, Any] | None:
        row = await self._store.get(key, transaction=transaction)
        where = None if row is None else (await self._store.rows(transaction)).where_key(key)
        if row is not None and where is not None:
            stored = await self._store.subjects.select(self._store.dataset.table, where)
            await self._handed_out(stored or [row], transaction)
        return row

    async def open(self, rows: Iterable[Any], *, transaction: Transaction | None = None) -> list[dict[str, Any]]:
        stored = [dict(row) for row in rows]
        opened = await self._store.open(stored, transaction=transaction)
        await self._handed_out(stored, transaction)
        return opened
