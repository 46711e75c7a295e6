"""A connection as the settings want it."""

from __future__ import annotations

import sqlite3
from time import monotonic, sleep

from datavern.contracts.errors import ConfigurationError
from datavern.engines.sqlite.settings import MEMORY, SQLiteSettings

__all__ = ["Connection", "open_connection"]

_STATEMENTS = 512  # prepared statements kept for each connection
_AGAIN = 0.01  # seconds until a busy file is tried again


class Connection(sqlite3.Connection):
    """A connection with a cursor that stays, for statements whose rows are all fetched at once.

    To make one for each statement costs a twentieth of a point select.

    Attributes:
        kept: the cursor. Whoever uses it leaves no statement open in it: that would hold its snapshot.
    """

    __slots__ = ("kept",)

    kept: sqlite3.Cursor


def open_connection(path: str, settings: SQLiteSettings, *, writes: bool) -> Connection:
    """Open the file and set what the settings ask for.

    The connection commits nothing by itself (`isolation_level=None`): transactions are begun and ended by the lanes.
    Where another process is just making the file's write-ahead log, SQLite does not wait by itself.
    """
    until = monotonic() + settings.busy_timeout
    while True:
        try:
            return _opened(path, settings, writes=writes)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= until:
                raise
        sleep(_AGAIN)  # on the lane's own thread


def _opened(path: str, settings: SQLiteSettings, *, writes: bool) -> Connection:
    connection = sqlite3.connect(
        path,
        timeout=settings.busy_timeout,
        isolation_level=None,
        check_same_thread=False,  # used by its own lane alone, but interrupted from the loop
        cached_statements=_STATEMENTS,
        factory=Connection,
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.kept = connection.cursor()
        run = connection.execute
        run(f"PRAGMA trusted_schema = {int(settings.trusted_schema)}")
        run(f"PRAGMA cache_size = -{settings.cache_size}")
        run(f"PRAGMA mmap_size = {settings.mmap_size}")
        run(f"PRAGMA foreign_keys = {int(settings.foreign_keys)}")
        if writes:
            mode = run("PRAGMA journal_mode = WAL").fetchone()[0]
            if path != MEMORY and mode != "wal":
                raise ConfigurationError(  # noqa: TRY301  (the connection is closed on the way out)
                    f"{settings.name}: path is where SQLite cannot keep a write-ahead log (its journal mode stays "
                    f"{mode}): use a local disk"
                )
            run(f"PRAGMA synchronous = {settings.synchronous}")
            run(f"PRAGMA secure_delete = {int(settings.secure_delete)}")
        else:
            run("PRAGMA query_only = 1")
        run("SELECT count(*) FROM sqlite_master").fetchone()  # reads the file: is it a database?
    except BaseException:
        connection.close()
        raise
    return connection
