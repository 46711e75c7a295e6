"""What SQLite and its driver say of a statement, in words that hold no value.

SQLite's messages quote names of tables and columns, and tokens of the statement. A token may be a literal that
somebody pasted into the text, so only what is shaped like a name is passed on; values that were bound are never in a
message of SQLite's, except for those of the driver, which are not passed on at all.
"""

from __future__ import annotations

import re
import sqlite3

from datavern.contracts.errors import (
    ConnectionFailed,
    ConstraintViolated,
    ProviderError,
    QueryRejected,
)
from datavern.engines.counts import takes

__all__ = ["of_constraint", "of_driver", "of_statement"]

_KINDS = {
    "PRIMARYKEY": "primary key",
    "ROWID": "primary key",
    "UNIQUE": "unique",
    "NOTNULL": "not null",
    "CHECK": "check",
    "FOREIGNKEY": "foreign key",
    "TRIGGER": "trigger",
    "DATATYPE": "type",
}
_SHAPED_LIKE_A_NAME = re.compile(r"[^\W\d][\w$]{0,62}(\.[^\W\d][\w$]{0,62}){0,2}\Z")
_PUNCTUATION = re.compile(r"[-()\[\],.;*+/<>=!|&~%?:@]{1,2}\Z")
_NEAR = re.compile(r'near "(.*)": syntax error\Z', re.DOTALL)
_UNRECOGNISED = re.compile(r'unrecognized token: "(.*)"\Z', re.DOTALL)
_NAMED = re.compile(
    r"(no such (?:table|column|function|index|view|trigger|savepoint|module|collation sequence)"
    r"|ambiguous column name|duplicate column name|no such table column|misuse of aggregate|unknown database"
    r"|object name reserved for internal use|missing datatype for): ?(.*)\Z",
    re.DOTALL,
)
# Messages that are passed on. Each group holds a name of the schema or of a function; what is none is left out.
_TOLD = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"table (.*) has \d+ columns but \d+ values were supplied\Z",
        r"wrong number of arguments to function (.*)\(\)\Z",
        r"misuse of (?:aggregate|window) function (.*)\(\)\Z",
        r"cannot modify (.*) because it is a view\Z",
        r"cannot (?:INSERT into|UPDATE) generated column \"(.*)\"\Z",
        r"use DROP (?:TABLE|VIEW) to delete (?:table|view) (.*)\Z",
        r"table (.*) may not be (?:dropped|altered|indexed|modified)\Z",
        r"cannot drop (?:PRIMARY KEY|UNIQUE) column: \"(.*)\"\Z",
        r"missing datatype for (.*)\Z",
        r"unknown datatype for (.*): \"(.*)\"\Z",
        r"PRIMARY KEY missing on table (.*)\Z",
    )
)
_ALREADY = re.compile(r"(table|index|view|trigger) (.*) already exists\Z", re.DOTALL)
_NO_COLUMN = re.compile(r"table (.*) has no column named (.*)\Z", re.DOTALL)
_COUNTS = (
    re.compile(r"\d+ values for \d+ columns\Z"),
    re.compile(r"all VALUES must have the same number of terms\Z"),
    re.compile(r"SELECTs to the left and right of [A-Z ]+ do not have the same number of result columns\Z"),
    re.compile(r"sub-select returns \d+ columns - expected \d+\Z"),
    re.compile(r"integer overflow\Z"),
    re.compile(r"malformed JSON\Z"),
    re.compile(r"\d+(?:st|nd|rd|th) (?:ORDER|GROUP) BY term out of range - should be between 1 and \d+\Z"),
    re.compile(r"aggregate functions are not allowed in the GROUP BY clause\Z"),
    re.compile(r"Expression tree is too large \(maximum depth \d+\)\Z"),
    re.compile(r"too many columns in result set\Z"),
    re.compile(r"too many terms in (?:compound SELECT|(?:ORDER|GROUP) BY clause)\Z"),
    re.compile(r"at most \d+ tables in a join\Z"),
    re.compile(r"parser stack overflow\Z"),
    re.compile(r"row value misused\Z"),
    re.compile(r"unable to identify the object to be reindexed\Z"),
    re.compile(r"Cannot add a (NOT NULL column with default value NULL|UNIQUE column|PRIMARY KEY column)\Z"),
    re.compile(r"cannot VACUUM (from within a transaction|- SQL statements in progress)\Z"),
)
_NOT_UTF8 = "a text in the database is not UTF-8: select it as CAST(… AS BLOB)"
# What the driver says before SQLite has seen anything; the groups hold counts, or a placeholder's name.
_BINDINGS = re.compile(r"Incorrect number of bindings supplied\. .*uses (\d+), and there (?:are|is) (\d+) supplied")
_DRIVER: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (
            r"You did not supply a value for binding (?:parameter )?:?([^\W\d]\w*)\.",
            "no value was given for the parameter :{0}",
        ),
        (
            r"You can only execute one statement at a time",
            "there is more than one statement in the text: run them one by one, in a transaction",
        ),
        (r".*null character", "the statement holds a NUL character (U+0000)"),
        (
            r"Binding \d+ (?:has no name|\('.*'\) is a named parameter)",
            "positional placeholders (?) take a list, named ones (:name) take a mapping",
        ),
        (r"Could not decode to UTF-8", _NOT_UTF8),
    )
)
_TYPES: tuple[tuple[type[BaseException], str], ...] = (
    (OverflowError, "an integer parameter is out of range: SQLite holds 64 bits with a sign"),
    (UnicodeEncodeError, "a text is not Unicode: it holds half of a surrogate pair"),
    (UnicodeDecodeError, _NOT_UTF8),
)
_MOST_TRIALS = 32


def of_constraint(message: str, code: str) -> ConstraintViolated:
    """SQLITE_CONSTRAINT and its extended codes."""
    kind = _KINDS.get(code.removeprefix("SQLITE_CONSTRAINT_"), "")
    constraint: str | None = None
    if " constraint failed: " in message:
        constraint = message.partition(" constraint failed: ")[2]
        if constraint.startswith("index '"):
            constraint = constraint[7:-1]
        elif kind == "check" and not _SHAPED_LIKE_A_NAME.match(constraint):
            constraint = None  # an unnamed check: SQLite gives its expression
    elif kind == "type":
        constraint = message.rpartition(" column ")[2] or None
    if kind == "trigger":
        text = "a trigger refused the change"
    elif constraint is None:
        text = f"a {kind} constraint was violated" if kind else "a constraint was violated"
    else:
        text = f"a {kind} constraint was violated: {constraint}"
    return ConstraintViolated(text, constraint=constraint)


def of_statement(message: str, sql: str | None, connection: sqlite3.Connection | None) -> QueryRejected:
    """SQLITE_ERROR: the statement does not parse, or names what is not there."""
    position: int | None = None
    if found := _NEAR.match(message) or _UNRECOGNISED.match(message):
        token = found[1]
        position = _token_position(message, token, sql, connection)
        text = "syntax error"
        if _SHAPED_LIKE_A_NAME.match(token) or _PUNCTUATION.match(token):
            text += f' at or near "{token}"'
    elif message == "incomplete input":
        text = "syntax error at the end of the statement"
        position = None if sql is None else len(sql) + 1
    elif found := _NAMED.match(message):
        name = found[2].removesuffix("()")
        position = _name_position(name, sql)
        text = found[1] + (f": {name}" if _SHAPED_LIKE_A_NAME.match(name) else "")
    elif found := _ALREADY.match(message):
        name = found[2].strip('"')
        position = _name_position(name, sql)
        text = f"{found[1]} {name if _SHAPED_LIKE_A_NAME.match(name) else '…'} already exists"
    elif found := _NO_COLUMN.match(message):
        names = [name if _SHAPED_LIKE_A_NAME.match(name) else "…" for name in found.groups()]
        position = _name_position(found[2], sql)
        text = f"table {names[0]} has no column named {names[1]}"
    else:
        text, position = _said(message, sql)
    return QueryRejected(text, position=position)


def _said(message: str, sql: str | None) -> tuple[str, int | None]:
    """What a message says that is about more than one name, and where that stands."""
    if message.startswith("unsafe use of "):
        return (
            "a view or a trigger of this file reaches for a virtual table or a function that a schema which is not "
            "trusted may not use: open the file with trusted_schema=True if it is your own"
        ), None
    if message == "not authorized":
        return "SQLite does not permit this here: functions that load code are turned off", None
    if any(pattern.match(message) for pattern in _COUNTS):
        return message, None
    told = next((found for pattern in _TOLD if (found := pattern.match(message))), None)
    if told is None:
        return "SQLite refused the statement", None
    return _without_what_is_no_name(told), _name_position(told[1], sql)


def of_driver(error: BaseException, message: str) -> ProviderError:
    """What the driver itself says, before SQLite has seen anything."""
    if counts := _BINDINGS.match(message):
        return QueryRejected(takes(int(counts[1]), int(counts[2])))
    for pattern, text in _DRIVER:
        if found := pattern.match(message):
            return QueryRejected(text.format(*found.groups()))
    for kind, text in _TYPES:
        if isinstance(error, kind):
            return QueryRejected(text)
    if "closed" in message:
        return ConnectionFailed("the connection is closed")
    return QueryRejected("the driver refused the statement or a parameter")


def _without_what_is_no_name(found: re.Match[str]) -> str:
    text = found.string
    for group in range(len(found.groups()), 0, -1):
        if not _SHAPED_LIKE_A_NAME.match(found[group]):
            text = f"{text[: found.start(group)]}…{text[found.end(group) :]}"
    return text


def _token_position(message: str, token: str, sql: str | None, connection: sqlite3.Connection | None) -> int | None:
    """Where the token stands that SQLite stumbled over: 1-based, or None where that cannot be told.

    The driver does not pass SQLite's own offset on. A token that stands there once is found at once; of several, it is
    the first at which the text that ends there gives the same error.
    """
    if not sql or not token:
        return None
    starts: list[int] = []
    start = sql.find(token)
    while start >= 0 and len(starts) <= _MOST_TRIALS:
        starts.append(start)
        start = sql.find(token, start + 1)
    if len(starts) == 1:
        return starts[0] + 1
    if connection is None or len(starts) > _MOST_TRIALS:
        return None
    for start in starts:
        try:
            connection.execute(f"EXPLAIN {sql[: start + len(token)]}").close()
        except sqlite3.Error as error:
            if str(error) == message:
                return start + 1
    return None


def _name_position(name: str, sql: str | None) -> int | None:
    """Where a name stands, when it stands there once."""
    if not sql or not name:
        return None
    found = [m.start() for m in re.finditer(rf"(?<![\w$]){re.escape(name)}(?![\w$])", sql)]
    return found[0] + 1 if len(found) == 1 else None
