"""Checkpoints, copied to where whoever can change the log cannot: a file, another database, an object store.

A log that was set back as a whole, entries and checkpoints together, looks like one that never went further. Only a
checkpoint that was kept elsewhere tells the difference: `Audit.seal` compares the log with what was published before it
signs anything on top, publishes what it signed, and `Audit.verify` compares again.
"""

from __future__ import annotations

import asyncio
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol

from datavern.audit.checkpoint import Checkpoint
from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import AuditError, ConstraintViolated, LogTampered
from datavern.crypto.key_files import flush_folder

if TYPE_CHECKING:
    from datavern.audit.published import Published

__all__ = ["DatabasePublisher", "FilePublisher", "ObjectPublisher", "ObjectStore", "Publisher"]

_PLAIN: Final = re.compile(r"[^A-Za-z0-9]+")


class Publisher(Protocol):
    """A place for checkpoints. Both methods may be called again after any failure."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    async def publish(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint. One that is there already, or covers more, stays as it is.

        Raises:
            LogTampered: another of that size is there, and stays.
            AuditError, ProviderError: it cannot be kept now.
        """
        ...

    async def latest(self, origin: str) -> Checkpoint | None:
        """The checkpoint of that log that covers most; None when there is none. It is not verified yet.

        Raises:
            LogTampered: what is there is no checkpoint.
            AuditError, ProviderError: it cannot be read now.
        """
        ...


class ObjectStore(Protocol):
    """What an object store has to offer: S3, Azure Blob Storage, or anything like them, best with versions locked."""

    async def put(self, name: str, data: bytes) -> None:
        """Write an object, over one of that name."""
        ...

    async def get(self, name: str) -> bytes | None:
        """Read an object; None when there is none of that name."""
        ...


class FilePublisher:
    """A folder, best on another machine: one file for each log's latest checkpoint, and one of all, for each month.

    Args:
        folder: where; made when it is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"file:{self._folder}"

    async def publish(self, checkpoint: Checkpoint) -> None:
        """See `Publisher.publish`. It is on the disk when this returns."""
        problem = ""
        try:
            await asyncio.to_thread(self._publish, checkpoint)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise AuditError(f"{self.name} cannot be written: {problem}")

    async def latest(self, origin: str) -> Checkpoint | None:
        """See `Publisher.latest`."""
        problem = ""
        try:
            return await asyncio.to_thread(self._latest, origin)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        raise AuditError(f"{self.name} cannot be read: {problem}")

    def _latest(self, origin: str) -> Checkpoint | None:
        try:
            return Checkpoint.load(self._folder / f"{_file_name(origin)}.latest")
        except FileNotFoundError:
            return None

    def _publish(self, checkpoint: Checkpoint) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        name, month = _file_name(checkpoint.origin), checkpoint.at[:7]
        # One at a time, in every process: of two, the earlier checkpoint must not come last.
        with (self._folder / f".{name}.lock").open("w") as lock:
            _lock(lock.fileno())
            if not _is_news(self._latest(checkpoint.origin), checkpoint, self.name):
                return
            with (self._folder / f"{name}-{month}.checkpoints").open("a", encoding="utf-8") as file:
                _write(file, f"{checkpoint.note}\n")
            temporary = self._folder / f".{name}.new"
            with temporary.open("w", encoding="utf-8") as file:
                _write(file, checkpoint.note)
            temporary.replace(self._folder / f"{name}.latest")
            flush_folder(self._folder)  # the new names as well as what they name


class DatabasePublisher:
    """A table, ``datavern_audit_published``, in a database that others administer.

    Args:
        provider: a database that can hold Datavern's own tables, connected.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._sql: Published | None = None

    @property
    def provider(self) -> Provider:
        """The database. Its own log's checkpoints prove nothing here: they are not published to it."""
        return self._provider

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"database:{self._provider.name}"

    async def publish(self, checkpoint: Checkpoint) -> None:
        """See `Publisher.publish`."""
        sql = await self._opened()
        if not _is_news(await self.latest(checkpoint.origin), checkpoint, self.name):
            return
        ledger, session = needs(self._provider, "ledger"), needs(self._provider, "session")
        row = {"origin": checkpoint.origin, "size": checkpoint.size, "at": checkpoint.at, "note": checkpoint.note}
        taken = False
        try:
            await session.execute(*sql.insert.bind(ledger.dialect, **row))
        except ConstraintViolated:  # another process published it, or another of that size, just now
            taken = True
        if taken:
            _is_news(await self.latest(checkpoint.origin), checkpoint, self.name)

    async def latest(self, origin: str) -> Checkpoint | None:
        """See `Publisher.latest`."""
        sql = await self._opened()
        ledger, session = needs(self._provider, "ledger"), needs(self._provider, "session")
        note = await session.query_value(*sql.latest.bind(ledger.dialect, of=origin))
        return None if note is None else Checkpoint.read(note)

    async def _opened(self) -> Published:
        if self._sql is None:
            from datavern.audit.published import Published  # noqa: PLC0415  (loads SQLAlchemy)

            sql = Published()
            await needs(self._provider, "ledger").create_tables(sql.metadata)
            self._sql = sql
        return self._sql


class ObjectPublisher:
    """An object store: an object for each checkpoint, and one for the latest of each log.

    Args:
        store: the store.
        prefix: what the objects' names begin with.
    """

    def __init__(self, store: ObjectStore, prefix: str = "checkpoints/") -> None:
        self._store = store
        self._prefix = prefix

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"object store {type(self._store).__name__}, {self._prefix}"

    async def publish(self, checkpoint: Checkpoint) -> None:
        """See `Publisher.publish`."""
        if not _is_news(await self.latest(checkpoint.origin), checkpoint, self.name):
            return
        log, note = f"{self._prefix}{_file_name(checkpoint.origin)}", checkpoint.note.encode()
        await self._store.put(f"{log}/{checkpoint.size:020d}", note)
        await self._store.put(f"{log}/latest", note)

    async def latest(self, origin: str) -> Checkpoint | None:
        """See `Publisher.latest`."""
        found = await self._store.get(f"{self._prefix}{_file_name(origin)}/latest")
        return None if found is None else Checkpoint.read(found.decode(errors="replace"))


def _lock(file: int) -> None:
    """Wait for the file; it is let go when it is closed."""
    try:
        import fcntl  # noqa: PLC0415  (not everywhere)
    except ImportError:  # pragma: no cover  (Windows)
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def _write(file: IO[str], text: str) -> None:
    """Write to the disk, not only to its cache."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _file_name(origin: str) -> str:
    """A name for a log's files: readable, and another for each log."""
    return f"{_PLAIN.sub('-', origin).strip('-')[-60:]}-{sha256(origin.encode()).hexdigest()[:8]}"


def _is_news(known: Checkpoint | None, checkpoint: Checkpoint, name: str) -> bool:
    """Whether it is to be kept.

    Raises:
        LogTampered: what is there contradicts it.
    """
    if known is None or known.size < checkpoint.size:
        return True
    if known.size > checkpoint.size:  # of another process, a moment ago; a log that was set back is not sealed at all
        return False
    if known.root != checkpoint.root:
        raise LogTampered(None, f"{name} holds another checkpoint of {known.size} entries: not the same log")
    return False
