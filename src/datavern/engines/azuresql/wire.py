"""What this engine needs of a driver: one connection, spoken to from one thread.

Two drivers offer it (`tds`, `odbc`). Their errors end here: what they say quotes values, so an error of this module
carries numbers and names of the schema, and no text of the server's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from datavern.engines.azuresql.rows import AzureSQLRow
from datavern.engines.azuresql.statements import Effect

__all__ = ["Answer", "Lost", "Refused", "Unfit", "Unread", "Wire", "named"]


class Refused(Exception):
    """The server answered with an error.

    Attributes:
        kind: the driver's class.
        number: the error's number, 0 where the driver does not tell it.
        severity: 11 to 16 for what the caller can mend, 20 and more where the server ends the session; 0: not told.
        sqlstate: what ODBC makes of it, or empty.
        constraint: name of the violated constraint, or ``table.column`` of a NULL that may not be one.
        procedure: where it was raised, or empty.
        line: 1-based line of the statement; 0: not told.
    """

    def __init__(
        self, kind: str, number: int, *, severity: int = 0, sqlstate: str = "", constraint: str | None = None,
        procedure: str = "", line: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(kind, number)
        self.kind = kind
        self.number = number
        self.severity = severity
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.procedure = procedure
        self.line = line


class Lost(Exception):
    """The connection is gone, and with it the answer. `kind` is the driver's class."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Unfit(Exception):
    """The driver could not encode a parameter: nothing was sent."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Unread(Exception):
    """The statement ran, and its answer holds what the driver cannot read: the connection is out of step."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(slots=True)
class Answer:
    """All that a statement, or a batch of them, gave.

    Attributes:
        sets: the rows of each result set.
        names: the columns of each result set.
        count: rows that the last statement with a count inserted, updated, deleted or gave; 0 for none.
        changed: the same of the last one that gave no rows.
    """

    sets: list[list[AzureSQLRow]] = field(default_factory=list)
    names: list[tuple[str, ...]] = field(default_factory=list)
    count: int = 0
    changed: int = 0

    def affected(self, does: Effect) -> int:
        """Rows that a text changed: one that may do anything is not counted by the rows that it gave."""
        return 0 if does is Effect.READS else self.count if does is Effect.WRITES else self.changed


class Wire(Protocol):
    """A connection. Everything but `interrupt` and `abort` is called from the connection's own thread.

    Attributes:
        columns: the names of the columns that `begin` has begun to read.
    """

    columns: tuple[str, ...]

    def run(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Run a text and read all that it gives.

        Args:
            sql: one statement, or without parameters a batch.
            parameters: for ``@P1``, ``@P2`` …, encoded already (`values.bound`).

        Raises:
            Refused: the server says no; it is in step again.
            Lost: the connection broke.
            Unfit: a parameter could not be encoded.
            Unread: the answer could not be read.
        """
        ...

    def begin(self, sql: str, parameters: Sequence[Any]) -> None:
        """Run a text and read nothing yet: `rows` gives its first result set, `end` leaves the rest."""
        ...

    def rows(self, most: int) -> list[AzureSQLRow]:
        """The next rows, `most` of them; fewer at the end only."""
        ...

    def end(self) -> None:
        """Leave what `begin` began."""
        ...

    def settle(self) -> None:
        """After `interrupt`: be in step with the server again, and leave an open transaction open."""
        ...

    def reset(self) -> None:
        """Make the session as new: transaction, settings, temporary tables and locks are gone."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, as far as the driver or the server can tell."""
        ...

    def close(self) -> None:
        """Say goodbye."""
        ...

    def interrupt(self) -> None:
        """From any thread: ask the server to stop what runs. Does not wait for it."""
        ...

    def abort(self) -> None:
        """From any thread: let go, now. What runs ends with `Lost`, or is left behind with its thread."""
        ...


_NAMES: Final = {
    2627: re.compile(r"constraint '([^']+)'"),  # Violation of UNIQUE KEY constraint 'name'. Cannot insert …
    2601: re.compile(r"unique index '([^']+)'"),
    547: re.compile(r'constraint "([^"]+)"'),
}
_NOT_NULL: Final = re.compile(r"column '([^']+)', table '(?:[^']*\.)?([^'.]+)'")


def named(number: int, message: str) -> str | None:
    """The constraint's name in what the server says in English (every session asks for that): before any value."""
    if number == 515:  # noqa: PLR2004  (Cannot insert the value NULL into column 'name', table 'db.dbo.people')
        found = _NOT_NULL.search(message)
        return f"{found[2]}.{found[1]}" if found else None
    pattern = _NAMES.get(number)
    found = pattern.search(message) if pattern else None
    return found[1] if found else None
