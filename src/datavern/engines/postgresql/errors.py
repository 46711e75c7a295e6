"""asyncpg's errors, translated once, at this engine's edge.

What the server and the driver say quotes values (``Key (email)=(…) already exists``, ``invalid input for query argument
$1: '…'``, ``column "Kari" does not exist`` where quotes were mistaken), so none of it is passed on: messages are made
here, from the SQLSTATE, from schema names that the server sends apart, and from positions.

Source of the codes: PostgreSQL 18 documentation, appendix A.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from datavern.contracts.errors import (
    ConnectionFailed,
    ConstraintViolated,
    DatavernError,
    DriverError,
    OutcomeUnknown,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)
from datavern.engines.counts import takes
from datavern.engines.postgresql.statements import Effect

__all__ = ["Fault", "Stage", "caused", "code_of", "demoted", "fault"]

Stage = Literal["statement", "transaction", "commit"]
"""Where an error came from: a statement of its own, one inside a transaction, or the commit."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, and what is to become of the connection.

    Attributes:
        error: to be raised; it carries nothing of the driver's own error.
        connection: "keep" (in step with the server), "discard", or "renew" (the server is gone, or is no longer what it
            was: every connection of the generation goes).
        unsent: provably nothing reached the server, or only what changes nothing: another connection may do it.
        parameter: 1-based number of the parameter that the driver could not encode, or None.
    """

    error: DatavernError
    connection: Literal["keep", "discard", "renew"] = "keep"
    unsent: bool = False
    parameter: int | None = None


_WORDS: dict[str, str] = {
    "08P01": "the server and the driver do not understand each other",
    "0A000": "the server does not support this",
    "21000": "more rows than the statement may have",
    "22000": "bad data",
    "22001": "a text is too long for its column",
    "22003": "a number is out of range",
    "22007": "not a valid date or time",
    "22008": "a date or time is out of range",
    "22012": "division by zero",
    "22021": "a text is not valid in the database's encoding",
    "22023": "a function's argument is not valid",
    "22P02": "a text is not a valid value of the type it should become",
    "22P05": "a character does not exist in the database's encoding",
    "25001": "this cannot run inside a transaction",
    "25006": "this session may only read",
    "25P01": "this needs a transaction",
    "25P02": "an earlier statement of this transaction failed, and only a rollback can follow",
    "25P03": "the transaction was idle for too long, and the server ended it",
    "26000": "no such prepared statement",
    "34000": "no such cursor",
    "3B001": "no such savepoint",
    "3F000": "no such schema",
    "42501": "this user may not do that",
    "42601": "syntax error",
    "42602": "not a valid name",
    "42622": "a name is too long",
    "42701": "a column is named twice",
    "42702": "a column's name is ambiguous",
    "42703": "no such column",
    "42704": "no such object",
    "42710": "the object exists already",
    "42725": "a function's name is ambiguous",
    "42803": "a column must be grouped or aggregated",
    "42804": "the types do not fit",
    "42846": "no such cast",
    "42883": "no such function or operator for these types",
    "42939": "a reserved name",
    "42P01": "no such table",
    "42P02": "a parameter of the statement has no value",
    "42P06": "the schema exists already",
    "42P07": "the table exists already",
    "42P08": "a parameter's type is ambiguous",
    "42P18": "a parameter's type cannot be told: add a cast, such as $1::text",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has too many connections",
    "54000": "too large, or too complex",
    "55006": "the object is in use",
    "55P03": "somebody else holds the lock",
    "57014": "the statement was cancelled, or took longer than the server allows",
    "P0001": "a function of the database raised an error",
}
_SAID_BY = {  # where in the server's source the error was made: its words may be in any language
    ("exec_parse_message", "42601"): (
        "one statement was expected, and there are several in the text: run them one by one, in a transaction, or all "
        "of them with execute and no parameters"
    ),
    ("ExecWithCheckOptions", "42501"): (
        "row-level security refuses the row: no tenant is set (transaction(tenant=…)), or the row is another's"
    ),
}
_CONSTRAINTS = {
    "23502": "not-null constraint",
    "23503": "foreign key constraint",
    "23505": "unique constraint",
    "23514": "check constraint",
    "23P01": "exclusion constraint",
}
_ENDS = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03"})
"""The server ends the session, or takes none: the message comes with a closed connection."""
_GONE = _ENDS - {"57P05", "25P03"}
"""Not this session alone (which idled for too long): the server or the database goes, or asks everybody to."""

_WAITED = "query_wait_timeout"
"""PgBouncer's whole message. It comes to who has no session yet: nothing of the transaction was sent on."""

_ARGUMENT_COUNT = re.compile(r"the server expects (\d+) arguments? for this query, (\d+) w")
_NO_SET = re.compile(r"executemany\(\) argument sequence element #(\d+): expected a sequence, got (\w+)")
_ARGUMENT = re.compile(r"\$(\d+)(?: in element #(\d+))?")


def fault(  # noqa: PLR0911  (one for each kind of error)
    error: BaseException,
    *,
    name: str,
    stage: Stage,
    effect: Effect = Effect.TOUCHES,
    parameters: Sequence[Any] = (),
    many: bool = False,
) -> Fault:
    """What to make of an error of asyncpg's.

    Args:
        error: what asyncpg raised. Not a cancellation: those pass as they are.
        name: the provider's, for messages.
        stage: see `Stage`.
        effect: what the statement may have done, where no answer came.
        parameters: of the statement: looked at only to say which of them holds a NUL.
        many: `parameters` is a sequence of such, one for each run.
    """
    if isinstance(error, asyncpg.ConnectionDoesNotExistError | ConnectionError | OSError):
        return _unanswered(error, name, stage, effect)
    if code_of(error) is not None:
        sets = list(parameters) if many else [parameters]
        return _from_server(error, name, stage, sets)
    if isinstance(error, asyncpg.InterfaceError | asyncpg.PostgresError):  # the driver's own carry no severity
        return _from_driver(error, name, stage)
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):
        raised = QueryRejected(
            f"{name}: a type of the answer was altered while connections were open; the statement ran, and its answer "
            "could not be read",
            provider=name,
        )
        # A new connection knows the types as they are, so what only reads can be read again there.
        again = stage == "statement" and effect is Effect.READS
        return Fault(caused(raised, error), "discard", unsent=again)
    if isinstance(error, ArithmeticError | ValueError | RecursionError) and not isinstance(error, UnicodeEncodeError):
        if _encoding(error):
            raised = QueryRejected(
                f"{name}: a parameter is not a value of the type that the statement takes, and is too large or too "
                "deeply nested to be told apart; nothing was done",
                provider=name,
            )
        else:
            raised = QueryRejected(
                f"{name}: the statement ran, and its answer holds a value beyond what Python's type takes (a date "
                "outside the years 1 to 9999, the time 24:00, an infinite interval, a number of thousands of digits in "
                "JSON, or JSON that is nested a thousand deep): cast it to text",
                provider=name,
            )
        return Fault(caused(raised, error), "discard")
    # What is left is the driver's own trouble (a text that is not valid Unicode, a protocol error): the connection is
    # out of step.
    if isinstance(error, UnicodeError | TypeError | ValueError):
        raised = QueryRejected(f"{name}: the driver could not encode the statement", provider=name)
        return Fault(caused(raised, error), "discard")
    return _unanswered(error, name, stage, effect)


def _encoding(error: BaseException) -> bool:
    """Whether it came while parameters were encoded, before anything was sent.

    The driver wraps what an encoder raises in an error of its own that quotes the value; this is the one that came of
    quoting it (an `int` of thousands of digits, lists in lists in lists).
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name.endswith("_encode_bind_msg"):
            return True
        trace = trace.tb_next
    return False


def code_of(error: BaseException | None) -> str | None:
    """The SQLSTATE that the server sent. The driver's own errors have one, too, which nobody sent."""
    if isinstance(error, asyncpg.PostgresError) and error.severity is not None:
        return str(error.sqlstate)
    return None


def caused(
    raised: ProviderError, error: BaseException, code: str | None = None, constraint: str | None = None
) -> ProviderError:
    """`raised`, with a scrubbed copy of the driver's error as its cause."""
    raised.__cause__ = DriverError.of(error, code, constraint)
    return raised


def _unanswered(error: BaseException, name: str, stage: Stage, effect: Effect) -> Fault:
    """The connection broke while an answer was awaited."""
    code = code_of(error) or code_of(error.__cause__)
    fate: Literal["discard", "renew"] = "renew" if code in _GONE else "discard"
    raised: ProviderError
    if code == "08P01" and _WAITED in {str(error), str(error.__cause__)}:
        raised = ConnectionFailed(
            f"{name}: the pooler had no session to give in time (query_wait_timeout): nothing was sent to the server",
            provider=name, code=code, retry="transaction" if stage == "transaction" else "safe",
        )  # fmt: skip
    elif stage == "transaction":
        raised = ConnectionFailed(
            f"{name}: the connection broke inside a transaction, which the server has undone",
            provider=name, code=code, retry="transaction",
        )  # fmt: skip
    elif stage == "statement" and effect is Effect.READS:
        raised = ConnectionFailed(f"{name}: the connection broke while reading", provider=name, code=code)
    else:
        what = "the commit" if stage == "commit" else "the statement"
        raised = OutcomeUnknown(
            f"{name}: the connection broke after {what} was sent and before its answer came: it may or may not have "
            "happened",
            provider=name, code=code,
        )  # fmt: skip
    return Fault(caused(raised, error, code), fate)


def _from_driver(error: asyncpg.InterfaceError | asyncpg.PostgresError, name: str, stage: Stage) -> Fault:
    """The driver refused, before anything of the statement was sent."""
    text = str(error.args[0]) if error.args else ""
    retry: Literal["safe", "transaction"] = "transaction" if stage == "transaction" else "safe"
    raised: ProviderError
    if "connection is closed" in text or "connection was closed" in text:
        raised = ConnectionFailed(f"{name}: the connection was closed", provider=name, retry=retry)
        return Fault(caused(raised, error), "discard", unsent=True)
    if problem := _about_the_list(text):
        return Fault(caused(QueryRejected(f"{name}: {problem}", provider=name), error))
    if argument := _ARGUMENT.search(text.split(":", 1)[0]):
        number, element = argument.groups()
        where = f"parameter ${number}" + ("" if element is None else f" of set {int(element) + 1}")
        raised = QueryRejected(f"{name}: {where} is not a value of the type that the statement takes", provider=name)
        return Fault(caused(raised, error), parameter=int(number))
    if "another operation" in text:
        raised = QueryRejected(
            f"{name}: a transaction takes one statement at a time, and another task's is still running", provider=name
        )
        return Fault(caused(raised, error))
    if "cannot exceed" in text:
        raised = QueryRejected(f"{name}: a statement takes at most 32767 parameters", provider=name)
        return Fault(caused(raised, error))
    raised = QueryRejected(f"{name}: the driver refused the statement or its parameters", provider=name)
    return Fault(caused(raised, error), "discard")


def _about_the_list(text: str) -> str:
    """What is wrong with the parameters as a list, and not with one of them."""
    if count := _ARGUMENT_COUNT.search(text):
        return takes(int(count[1]), int(count[2]))
    if no_set := _NO_SET.search(text):
        number, given = int(no_set[1]) + 1, no_set[2]
        return f"set {number} of the parameters is of type {given}: expected a list or a tuple of values"
    return ""


def _from_server(error: Any, name: str, stage: Stage, sets: Sequence[Sequence[Any]]) -> Fault:
    """The server answered with an error, and has undone the statement (and with it the transaction)."""
    code: str = error.sqlstate or ""
    constraint: str | None = error.constraint_name
    position = int(error.position) if str(error.position or "").isdigit() else None
    raised: ProviderError
    fate: Literal["keep", "discard", "renew"] = "keep"
    if code.startswith("23"):
        if constraint is None and error.column_name:  # a NOT NULL without a name of its own
            constraint = f"{error.table_name}.{error.column_name}"
        raised = ConstraintViolated(
            f"{name}: {_violation(error, code)} (SQLSTATE {code})",
            provider=name, code=code, constraint=constraint, position=position,
        )  # fmt: skip
    elif code in {"40001", "40P01", "40000"} or isinstance(error, asyncpg.InvalidCachedStatementError):
        words = {
            "40001": "the transaction collided with another",
            "40P01": "the transaction and another waited for each other",
        }.get(code, "the schema changed under the transaction")
        raised = SerializationConflict(f"{name}: {words}, and was undone (SQLSTATE {code})", provider=name, code=code)
        # The statements of its connection are of the schema before: a new one knows the present one.
        fate = "discard" if isinstance(error, asyncpg.InvalidCachedStatementError) else "keep"
    elif code == "40003":
        raised = OutcomeUnknown(f"{name}: the server does not know if it was done", provider=name, code=code)
        fate = "discard"
    elif code in _ENDS or code.startswith("08"):
        return _unanswered(error, name, stage, Effect.TOUCHES)
    elif code == "25006" and stage == "statement":
        # Nobody asked for a read-only transaction: the server takes no writes (any more).
        raised = ConnectionFailed(
            f"{name}: the server takes no writes: it is a standby, or was set read-only", provider=name, code=code
        )
        fate = "renew"
    else:
        words = _SAID_BY.get((error.server_source_function, code)) or _WORDS.get(code) or _condition(error)
        if error.server_source_function == "record_recv":
            words = "a composite value does not have the fields of its type, or the type was altered meanwhile"
            fate = "discard"  # it may know the type as it was
        elif code == "XX000":  # a type that was dropped and made again, to a statement prepared before
            words = "an internal error of the server, or a type that was dropped while the statement was in use"
            fate = "discard"
        if code == "22021" and (number := _nul(sets)):
            words = f"parameter ${number} holds a NUL character, which PostgreSQL's text cannot hold"
        where = "" if position is None else f", at character {position} of the statement"
        raised = QueryRejected(f"{name}: {words}{where} (SQLSTATE {code})", provider=name, code=code, position=position)
    return Fault(caused(raised, error, code or None, constraint), fate)


def demoted(found: Fault, name: str) -> Fault:
    """A transaction that was to write, on a server that takes no writes any more."""
    raised = ConnectionFailed(
        f"{name}: the server takes no writes: it is a standby, or was set read-only",
        provider=name, code="25006", retry="transaction",
    )  # fmt: skip
    raised.__cause__ = found.error.__cause__
    return Fault(raised, "renew")


def _violation(error: asyncpg.PostgresError, code: str) -> str:
    kind = _CONSTRAINTS.get(code, "constraint")
    table = f" of table {error.table_name}" if error.table_name else ""
    if error.constraint_name:
        return f"{kind} {error.constraint_name}{table} violated"
    if error.column_name:
        return f"{kind} on column {error.column_name}{table} violated"
    return f"{kind}{table} violated"


def _condition(error: asyncpg.PostgresError) -> str:
    """The condition's name from appendix A, as the driver's class spells it: InvalidCursorStateError."""
    words = re.findall(r"[A-Z][a-z]*", type(error).__name__.removesuffix("Error"))
    return " ".join(words).lower() or "rejected"


def _nul(sets: Sequence[Sequence[Any]]) -> str:
    """The number of the parameter that holds a NUL, and of its set where there are several; empty: none does."""
    for which, parameters in enumerate(sets, 1):
        for number, value in enumerate(parameters, 1):
            if isinstance(value, str) and "\0" in value:
                return str(number) if len(sets) == 1 else f"{number} of set {which}"
    return ""
