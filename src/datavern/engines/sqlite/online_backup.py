"""A copy of a database while it is used, and a look at whether it is whole.

Both take a connection and a thread of their own, so that neither the writer nor the readers wait for them; a database
in memory has one connection, which does it between two writes.

Sources: https://sqlite.org/backup.html; https://sqlite.org/pragma.html#pragma_integrity_check.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, ProviderError
from datavern.engines.sqlite.connection import open_connection
from datavern.engines.sqlite.errors import translate
from datavern.engines.sqlite.jobs import Job, Kind, forget, run_function
from datavern.engines.sqlite.settings import MEMORY, SQLiteSettings

if TYPE_CHECKING:
    from pathlib import Path

    from datavern.engines.sqlite.lanes import Lanes

__all__ = ["Upkeep"]

_PAGES = 512  # of one step: a cancellation is seen between two
_PATIENCE = 10.0  # seconds that a cancelled call waits for its thread to clean up; a frozen disk may take longer
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _StoppedError(Exception):
    """Nobody waits for it any more."""


class Upkeep:
    """Backup, checkpoint and integrity check of a SQLite provider."""

    __slots__ = ()

    async def backup(self, path: str | os.PathLike[str]) -> int:
        """Copy the database to a new file while it is used; how many bytes that is.

        The copy is the database as it was at one moment, soon after the call began, whatever is written meanwhile. It
        is one file, with no write-ahead log beside it, readable by this user alone (mode 0600), and it appears under
        its name when it is complete and on the disk. A cancelled call, or one that fails, leaves nothing behind; a
        process that is killed leaves a file with ``.part-`` in its name.

        While it runs, the write-ahead log cannot be cut and grows with what is written. The copy is not encrypted, as
        the database is not: sealed fields stay sealed in it, and everything else can be read.

        Args:
            path: the new file; its folder must be there. Nothing is ever overwritten.

        Raises:
            ConfigurationError: the path cannot be: it exists, its folder does not.
            ProviderError: the disk is full or fails, or the system does not let this user write there.
        """
        target = _new_file(path)
        stop = threading.Event()
        future = _aside(self, lambda connection: _copy(connection, target, stop), stop)
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([future], timeout=_PATIENCE)
            if future.done() and not future.cancelled() and future.exception() is None:
                target.unlink(missing_ok=True)  # it was complete at that very moment
            forget(future)
            raise
        return future.result()  # type: ignore[no-any-return]  # what _copy returns

    async def checkpoint(self) -> bool:
        """Write everything from the write-ahead log into the file and cut the log to nothing.

        Until then the log holds older pages as well: content that was deleted since, or overwritten. Whoever erases
        something and wants it gone from the disk now calls this.

        Returns:
            Whether the log was cut: False while a stream, a read-only transaction or another process reads from it.
        """
        provider: Any = self
        if provider.settings.in_memory:
            provider._ready()  # noqa: SLF001  (a part of the provider, in a file of its own)
            return True
        row = await provider.query_one("PRAGMA wal_checkpoint(TRUNCATE)")
        return row is not None and row[0] == 0

    async def integrity_check(self) -> list[str]:
        """What is wrong with the file, a line for each fault; nothing when it is whole. It reads all of it.

        Looks at pages, indexes, the types of STRICT tables, NOT NULL and CHECK constraints, and foreign keys. The
        lines name tables, indexes and rows by number, never a value.
        """
        stop = threading.Event()
        future = _aside(self, _faults, stop)
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            stop.set()
            forget(future)
            raise
        return future.result()  # type: ignore[no-any-return]  # what _faults returns


# ---- on a thread of its own -----------------------------------------------------------------------------------------


def _aside(provider: Any, work: Callable[[sqlite3.Connection], Any], stop: threading.Event) -> asyncio.Future[Any]:
    """Do the work beside everything else; what it gives, or the error as ours."""
    lanes: Lanes = provider._ready()  # noqa: SLF001  (a part of the provider, in a file of its own)
    if lanes.settings.in_memory:
        job = Job(lanes.loop, run_function, work, (), Kind.ALONE)
        lanes.writer.add(job)
        return lanes.loop.create_task(_outcome(job))
    future: asyncio.Future[Any] = lanes.loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = _attempt(lanes.path, lanes.settings, work, stop)
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            lanes.loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=f"datavern-{lanes.name}-aside", daemon=True).start()
    return future


async def _outcome(job: Job) -> Any:
    return await job


def _attempt(
    path: str, settings: SQLiteSettings, work: Callable[[sqlite3.Connection], Any], stop: threading.Event
) -> tuple[Any, BaseException | None]:
    try:
        with closing(open_connection(path, settings, writes=False)) as connection:
            connection.set_progress_handler(stop.is_set, 10_000)  # true: the statement is interrupted
            return work(connection), None
    except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to the caller)
        return None, translate(error, provider=settings.name)


def _copy(source: sqlite3.Connection, path: Path, stop: threading.Event) -> int:
    part = path.with_name(f"{path.name}.part-{os.urandom(8).hex()}")
    reason = ""
    try:
        return _copy_by_way_of(part, source, path, stop)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    raise ProviderError(f"backup: {path} cannot be written: {reason}")


def _copy_by_way_of(part: Path, source: sqlite3.Connection, path: Path, stop: threading.Event) -> int:
    def look(_status: int, _remaining: int, _total: int) -> None:
        if stop.is_set():
            raise _StoppedError

    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
        finally:
            os.close(descriptor)
        with closing(sqlite3.connect(part, isolation_level=None)) as target:
            # One snapshot for all steps: without it, SQLite begins anew whenever somebody has written between two.
            source.execute("BEGIN")
            try:
                source.execute("SELECT count(*) FROM sqlite_master").fetchone()
                source.backup(target, pages=_PAGES, progress=look)
            finally:
                source.execute("ROLLBACK")
            target.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, whole by itself
        size = part.stat().st_size
        _sync(part)
        look(0, 0, 0)
        _publish(part, path)
        _sync(path.parent)
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            part.with_name(part.name + ending).unlink(missing_ok=True)
    return size


def _publish(part: Path, path: Path) -> None:
    """Give the file its name, unless somebody else has taken it meanwhile."""
    taken = False
    try:
        os.link(part, path)
    except FileExistsError:
        taken = True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        taken = os.path.lexists(path)
        if not taken:
            part.rename(path)
    if taken:
        raise _exists(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_file(given: str | os.PathLike[str]) -> Path:
    name = os.fspath(given)
    if not isinstance(name, str) or not name or "\0" in name or name == MEMORY:
        raise ConfigurationError("backup: expected the path of a new file")
    from pathlib import Path  # noqa: PLC0415  (waits for the first backup)

    path = Path(os.path.abspath(name))  # noqa: PTH100  (names are taken as they are: links are followed by nobody)
    if os.path.lexists(path):
        raise _exists(path)
    if not path.parent.is_dir():
        raise ConfigurationError(f"backup: there is no folder {path.parent}: make it first")
    return path


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(f"backup: {path} is there already, and nothing is overwritten: give another name")


def _faults(connection: sqlite3.Connection) -> list[str]:
    connection.execute("BEGIN")
    try:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        found = [] if found == ["ok"] else found
        found += [
            f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there (foreign key {row[3]})"
            for row in connection.execute("PRAGMA foreign_key_check")
        ]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            raise
        return ["the file is damaged so much that it cannot be looked through"]
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return found
