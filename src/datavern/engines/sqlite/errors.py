"""SQLite's result codes as the tree of errors, and nothing of what it says about values (`messages`)."""

from __future__ import annotations

import sqlite3

from datavern.contracts.errors import (
    ConnectionFailed,
    DatavernError,
    DriverError,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)

__all__ = ["code_of", "translate", "unopened"]

# Names that Python 3.11 does not know of (https://sqlite.org/rescode.html).
_NAMES = {3091: "SQLITE_CONSTRAINT_DATATYPE"}

_FIXED: dict[int, tuple[type[ProviderError], str]] = {
    sqlite3.SQLITE_BUSY: (
        SerializationConflict,
        "the database file stayed busy with another writer for as long as busy_timeout allows",
    ),
    sqlite3.SQLITE_LOCKED: (SerializationConflict, "another statement holds a lock that this one needs"),
    sqlite3.SQLITE_PROTOCOL: (SerializationConflict, "the locks of the write-ahead log could not be had in time"),
    sqlite3.SQLITE_FULL: (
        ProviderError,
        "the disk is full (or the database has reached max_page_count): free some space; nothing of this was kept",
    ),
    sqlite3.SQLITE_IOERR: (
        ProviderError,
        "the disk did not do as it was told (I/O error): look at the system's log; nothing of this was acknowledged",
    ),
    sqlite3.SQLITE_CORRUPT: (
        ProviderError,
        "the database file is damaged: keep a copy of it, run PRAGMA integrity_check on that, and restore a backup",
    ),
    sqlite3.SQLITE_NOTADB: (ProviderError, "the file is not a SQLite database (or it is encrypted): check the path"),
    sqlite3.SQLITE_READONLY: (
        ProviderError,
        "the database cannot be written to: check the permissions of the file and of its folder",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        ProviderError,
        "the database file cannot be opened: check that its folder exists and that both may be read and written",
    ),
    sqlite3.SQLITE_PERM: (ProviderError, "the system does not permit access to the database file"),
    sqlite3.SQLITE_NOMEM: (ProviderError, "SQLite ran out of memory"),
    sqlite3.SQLITE_NOLFS: (ProviderError, "the file system cannot hold files of this size"),
    sqlite3.SQLITE_INTERRUPT: (ProviderError, "the statement was interrupted"),
    sqlite3.SQLITE_MISMATCH: (QueryRejected, "a value does not fit: an integer is needed here"),
    sqlite3.SQLITE_TOOBIG: (
        QueryRejected,
        "a text, a value or the statement is longer than SQLite holds (1 GB unless set otherwise)",
    ),
    sqlite3.SQLITE_AUTH: (QueryRejected, "the statement is not permitted here"),
}


def code_of(error: BaseException) -> str | None:
    """The extended result code's name, such as ``SQLITE_CONSTRAINT_UNIQUE``; None for the driver's own errors."""
    number = getattr(error, "sqlite_errorcode", None)
    if number is None:
        return None
    name = getattr(error, "sqlite_errorname", "unknown")
    return _NAMES.get(number, f"SQLITE_{number}") if name == "unknown" else name


def translate(
    error: BaseException,
    *,
    provider: str,
    sql: str | None = None,
    connection: sqlite3.Connection | None = None,
) -> BaseException:
    """The driver's error as ours, ready to be raised: its cause is scrubbed, and it has no context.

    Args:
        error: what the driver raised.
        provider: the provider's name.
        sql: the statement, for the position.
        connection: a connection to ask where a syntax error stands; nothing is run on it but EXPLAIN.
    """
    if isinstance(error, DatavernError):
        if isinstance(error, ProviderError):
            error.provider = error.provider or provider
        error.__context__ = None
        return error.with_traceback(None)
    if isinstance(error, MemoryError):
        return error.with_traceback(None)
    from datavern.engines.sqlite import messages  # noqa: PLC0415  (its patterns are compiled for the first error)

    code = code_of(error)
    number = getattr(error, "sqlite_errorcode", None)
    primary = None if number is None else number & 0xFF
    message = str(error) if isinstance(error, sqlite3.Error) else ""
    if primary is None:
        ours: ProviderError = messages.of_driver(error, message)
    elif primary in _FIXED:
        kind, text = _FIXED[primary]
        ours = kind(text)
    elif primary == sqlite3.SQLITE_CONSTRAINT:
        ours = messages.of_constraint(message, code or "")
    else:
        ours = messages.of_statement(message, sql, connection)
    ours.provider, ours.code = provider, code
    ours.__cause__ = DriverError.of(error, code, ours.constraint)
    return ours


def unopened(error: BaseException, *, provider: str, path: str) -> ConnectionFailed:
    """A database that could not be opened."""
    ours = translate(error, provider=provider)
    failed = ConnectionFailed(f"{provider}: {path}: {ours}", provider=provider, code=code_of(error), retry="never")
    failed.__cause__ = ours.__cause__
    return failed
