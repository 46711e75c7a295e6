"""What is handed to a lane, and how it runs on the lane's connection."""

from __future__ import annotations

import re
import sqlite3
from asyncio import AbstractEventLoop, CancelledError, Future, Task
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextvars import Context
from enum import IntEnum
from typing import Any, Literal, Self

from datavern.contracts.errors import QueryRejected
from datavern.contracts.values import Parameters
from datavern.engines.sqlite.bind import bound
from datavern.engines.sqlite.connection import Connection

__all__ = [
    "DONE",
    "PENDING",
    "READ",
    "WRITE",
    "Job",
    "Kind",
    "OwnedJob",
    "Owner",
    "Run",
    "classify",
    "done_future",
    "first_word",
    "forget",
    "run_all",
    "run_count",
    "run_function",
    "run_many",
    "run_many_or_none",
    "run_nothing",
    "run_one",
    "run_value",
]


Run = Callable[[Connection, Any, Any], Any]
"""Does a job: called with the lane's connection, the statement and its parameters."""


class Kind(IntEnum):
    """Where a statement's text may run."""

    READ = 1
    """On a reader: nothing in the text says that it writes. A reader refuses to write, so a mistake is found out."""
    WRITE = 2
    """On the writer, in a transaction with others."""
    ALONE = 3
    """On the writer, in no transaction: PRAGMA and VACUUM have their own ideas about them."""


# For what every job asks: an enumeration's own look-up takes a tenth of a microsecond in Python 3.11.
READ = Kind.READ
WRITE = Kind.WRITE

PENDING, DONE, CANCELLED = 0, 1, 2


class Job:
    """One operation that waits for a lane, or runs on it. One task awaits it, on the loop, and gets what it gave.

    It is future-like (`asyncio.isfuture`): it has what a task asks of what it awaits. With a future of asyncio's beside
    each job, the loop would make a handle for every task that may go on, and call each back by itself; `Lanes.deliver`
    lets them go on at once, for all that a lane has done. That is worth a tenth of a point select.

    Attributes:
        run: called with the connection, `sql` and `parameters`.
        kind: which lane may run it.
        number: its place among all reads that were queued.
        since: when it was first seen waiting for a writer that somebody holds, in the loop's time; 0.0 until then.
        state: `PENDING`, `DONE` or `CANCELLED`. It is changed on the loop alone, and so is what follows.
        outcome: what it gave.
        error: what it raised, or why it was not run; None when it gave an outcome.
        callback: lets the task that awaits it go on, in `context`; None until there is one.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_loop",
        "callback",
        "context",
        "error",
        "kind",
        "number",
        "outcome",
        "parameters",
        "run",
        "since",
        "sql",
        "state",
    )

    # Not set until they mean something: each is a hundredth of what it takes to make a job.
    number: int
    outcome: Any
    error: BaseException | None
    context: Context

    def __init__(self, loop: AbstractEventLoop, run: Run, sql: Any, parameters: Any, kind: Kind) -> None:
        self._loop = loop  # asyncio looks for it where there is no get_loop()
        self.callback: Callable[[Any], object] | None = None
        self.run = run
        self.sql = sql
        self.parameters = parameters
        self.kind = kind
        self.since = 0.0
        self.state = PENDING

    def __await__(self) -> Generator[Self, None, Any]:
        if self.state == PENDING:
            self._asyncio_future_blocking = True
            yield self
        if self.error is None:
            return self.outcome
        raise self.error

    # ---- what a task asks of what it awaits -------------------------------------------------------------------------

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        """Only of the one task that awaits it."""
        self.callback = callback
        self.context = context

    def cancel(self, msg: Any = None) -> bool:
        """Its task goes on with a `CancelledError`, and abandons it (`Lanes.abandon`). False when it was done."""
        if self.state != PENDING:
            return False
        self._end(CANCELLED, CancelledError() if msg is None else CancelledError(msg))
        return True

    # ---- on the loop ------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """No lane will run it, or none knows what became of it."""
        if self.state == PENDING:
            self._end(DONE, error)

    def _end(self, state: int, error: BaseException) -> None:
        self.state = state
        self.error = error
        if self.callback is not None:
            self._loop.call_soon(self.callback, done_future(self._loop), context=self.context)


def done_future(loop: AbstractEventLoop) -> Future[None]:
    """What a task is called back with: it goes on, and finds in the job what became of it."""
    future: Future[None] = loop.create_future()
    future.set_result(None)
    return future


class Owner:
    """Who holds a lane for a while: a transaction or a stream.

    Attributes:
        jobs: what waits to be run for it.
        task: the task that holds it.
        lost: the engine has rolled the transaction back by itself, or could not begin it. Set by the lane.
    """

    __slots__ = ("jobs", "lost", "task")

    def __init__(self, task: Task[Any] | None) -> None:
        self.jobs: deque[Job] = deque()
        self.task = task
        self.lost = False


class OwnedJob(Job):
    """An operation of somebody who holds a lane.

    Attributes:
        prefix: control statements to run first: BEGIN and SAVEPOINT wait for the first statement that needs them, so
            that they cost no hop of their own. They run even when the statement itself was cancelled.
        ends: None, or how the lane is let go of: with a commit or without one.
    """

    __slots__ = ("ends", "owner", "prefix")

    def __init__(
        self,
        loop: AbstractEventLoop,
        run: Run,
        sql: Any,
        parameters: Any,
        *,
        owner: Owner,
        prefix: Sequence[str] = (),
        ends: Literal["commit", "rollback"] | None = None,
    ) -> None:
        super().__init__(loop, run, sql, parameters, Kind.WRITE)
        self.owner = owner
        self.prefix = prefix
        self.ends = ends


def run_all(connection: Connection, sql: str, parameters: Parameters) -> list[sqlite3.Row]:
    """All rows."""
    return connection.kept.execute(sql, bound(parameters)).fetchall()


def run_one(connection: Connection, sql: str, parameters: Parameters) -> sqlite3.Row | None:
    """The first row, or None."""
    rows = connection.kept.execute(sql, bound(parameters)).fetchmany(2)
    if len(rows) > 1:
        connection.kept = connection.cursor()  # there may be more: the old one goes, and its statement is reset
    return rows[0] if rows else None


def run_value(connection: Connection, sql: str, parameters: Parameters) -> Any:
    """The first column of the first row, or None."""
    row = run_one(connection, sql, parameters)
    return None if row is None else row[0]


def run_count(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> int:
    """How many rows were changed."""
    before = connection.total_changes
    cursor = connection.execute(sql, bound(parameters))
    if cursor.description is not None:
        cursor.fetchall()  # RETURNING: the count is known at the end of the rows
    count = cursor.rowcount
    if count >= 0:
        return count
    if connection.total_changes == before:
        return 0  # a read, or a change of the schema
    return connection.execute("SELECT changes()").fetchone()[0]  # type: ignore[no-any-return]  # WITH … INSERT


def run_many(connection: sqlite3.Connection, sql: str, parameters: Sequence[Parameters]) -> int:
    """The statement once for each set of parameters; how many sets."""
    if _CHANGES.match(sql):
        connection.executemany(sql, map(bound, parameters)).close()
    else:  # what the driver's executemany does not take for a change of rows: WITH … INSERT
        for one in parameters:
            connection.execute(sql, bound(one)).close()
    return len(parameters)


def run_many_or_none(connection: sqlite3.Connection, sql: str, parameters: Sequence[Parameters]) -> int:
    """The same inside a transaction that goes on after a failure."""
    connection.execute("SAVEPOINT datavern_many")
    try:
        count = run_many(connection, sql, parameters)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO datavern_many")
            connection.execute("RELEASE datavern_many")
        raise
    connection.execute("RELEASE datavern_many")
    return count


def run_function(connection: sqlite3.Connection, sql: Callable[[sqlite3.Connection], Any], parameters: Any) -> Any:  # noqa: ARG001  (every job is called alike)
    """A function of the connection."""
    return sql(connection)


def run_nothing(connection: sqlite3.Connection, sql: Any, parameters: Any) -> None:
    """Nothing: the job is there for its prefix, or for how it ends."""


_LEADING = re.compile(r"(?:\s+|;|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*([A-Za-z]*)", re.DOTALL)


def forget(future: Future[Any]) -> None:
    """Nobody looks at what becomes of it; asyncio need not report it."""
    future.add_done_callback(_look_away)


def _look_away(future: Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


_CHANGES = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_CONTROL = {
    "BEGIN": "transaction()",
    "COMMIT": "transaction()",
    "END": "transaction()",
    "ROLLBACK": "transaction()",
    "SAVEPOINT": "savepoint() of a transaction",
    "RELEASE": "savepoint() of a transaction",
    "ATTACH": "a provider for each file",
    "DETACH": "a provider for each file",
}
_READS = frozenset({"SELECT", "VALUES", "WITH", "EXPLAIN", ""})
_ALONE = frozenset({"PRAGMA", "VACUUM"})


def first_word(sql: str) -> str:
    """The first word of a text, in upper case."""
    found = _LEADING.match(sql)
    return found[1].upper() if found else ""


def classify(sql: str) -> Kind:
    """Where a text may run, by its first word. WITH may yet turn out to write: SQLite itself tells, on a reader.

    Raises:
        QueryRejected: the text would end a transaction that is not its own, or it is no text.
    """
    if not isinstance(sql, str):
        raise QueryRejected(f"the statement is a {type(sql).__name__}: expected text")
    word = first_word(sql)
    if not word and _LEADING.fullmatch(sql):
        raise QueryRejected("the text holds no statement")
    if word in _CONTROL:
        raise QueryRejected(f"{word} is not run as a statement: use {_CONTROL[word]}", position=None)
    if word in _READS:
        return Kind.READ
    return Kind.ALONE if word in _ALONE else Kind.WRITE
