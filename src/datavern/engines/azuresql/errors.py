"""A driver's errors, translated once, at this engine's edge.

What the server says quotes values (``The duplicate key value is (…)``), so none of it is passed on: messages are made
here, from the error's number and from schema names (`datavern.engines.azuresql.wire`).

What the numbers mean, and where that is written: `datavern.engines.azuresql.numbers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    ConstraintViolated,
    DatavernError,
    DriverError,
    OutcomeUnknown,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)
from datavern.engines.azuresql.numbers import (
    CONFLICTS,
    CONSTRAINTS,
    FINAL_LOGIN,
    LOGIN,
    MOVED,
    NETWORK,
    NULL,
    READ_ONLY,
    STATES,
    THROTTLED,
    TRANSIENT,
    TRANSIENT_LOGIN,
    WORDS,
)
from datavern.engines.azuresql.statements import Effect
from datavern.engines.azuresql.wire import Lost, Refused, Unfit

__all__ = ["Fault", "Stage", "connecting", "fault", "missing_libraries"]

Stage = Literal["statement", "transaction", "commit"]
"""Where an error came from: a statement of its own, one inside a transaction, or the commit."""

_FATAL: Final = 20
"""From this severity on the server ends the session."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, and what is to become of the connection.

    Attributes:
        error: to be raised; it carries nothing of the driver's own error.
        connection: "keep" (in step with the server), "discard", or "renew" (the server is gone, or is no longer what it
            was: every connection of the generation goes).
        again: the statement was provably not done, and Microsoft says that it may be tried again.
        rest: seconds to wait before that, at the least.
    """

    error: DatavernError
    connection: Literal["keep", "discard", "renew"] = "keep"
    again: bool = False
    rest: float = 0.0


_SYNTAX: Final = frozenset({102, 105, 113, 156, 170, 319, 4145})


def fault(error: Exception, *, name: str, stage: Stage, effect: Effect = Effect.TOUCHES) -> Fault:
    """What to make of an error of a `Wire`.

    Args:
        error: one of those of `datavern.engines.azuresql.wire`. Not a cancellation: those pass as they are.
        name: the provider's, for messages.
        stage: see `Stage`.
        effect: what the statement may have done.
    """
    if isinstance(error, DatavernError):
        return Fault(error)
    if isinstance(error, Refused):
        if error.number in NETWORK or error.sqlstate.startswith("08"):
            return _unanswered(error, error.kind, name, stage, effect)
        return _refused(error, name, stage, effect)
    if isinstance(error, Unfit):
        raised = QueryRejected(f"{name}: the driver could not encode a parameter", provider=name)
        return Fault(_caused(raised, error.kind), "discard")
    if isinstance(error, Lost):
        return _unanswered(error, error.kind, name, stage, effect)
    kind = str(getattr(error, "kind", "")) or f"{type(error).__module__}.{type(error).__qualname__}"
    raised = QueryRejected(
        f"{name}: the statement ran, and its answer holds a value that cannot be read: cast it to nvarchar",
        provider=name,
    )
    return Fault(_caused(raised, kind), "discard")


def _caused(raised: ProviderError, kind: str, code: str | None = None, constraint: str | None = None) -> ProviderError:
    raised.__cause__ = DriverError(kind, code, constraint)
    return raised


def _unanswered(error: Exception, kind: str, name: str, stage: Stage, effect: Effect) -> Fault:
    """The connection broke while an answer was awaited."""
    number = error.number if isinstance(error, Refused) else 0
    code = str(number) if number else None
    raised: ProviderError
    again = False
    if stage == "transaction":
        raised = ConnectionFailed(
            f"{name}: the connection broke inside a transaction, which the server has undone",
            provider=name, code=code, retry="transaction",
        )  # fmt: skip
    elif stage == "statement" and effect is Effect.READS:
        raised = ConnectionFailed(f"{name}: the connection broke while reading", provider=name, code=code)
        again = True
    else:
        what = "the commit" if stage == "commit" else "the statement"
        raised = OutcomeUnknown(
            f"{name}: the connection broke after {what} was sent and before its answer came: it may or may not have "
            "happened",
            provider=name, code=code,
        )  # fmt: skip
    return Fault(_caused(raised, kind, code), "discard", again=again)


def _refused(error: Refused, name: str, stage: Stage, effect: Effect) -> Fault:
    number, constraint = error.number, error.constraint
    code = str(number) if number else error.sqlstate or None
    ended = error.severity >= _FATAL
    fate: Literal["keep", "discard", "renew"] = "renew" if number in MOVED else "discard" if ended else "keep"
    raised: ProviderError
    again = False
    if number == NULL or number in CONSTRAINTS:
        raised = ConstraintViolated(
            f"{name}: {_violation(number, constraint)} (error {number})",
            provider=name, code=code, constraint=constraint,
        )  # fmt: skip
    elif number in CONFLICTS or error.sqlstate == "40001":
        words = "deadlocked with another" if number == 1205 else "collided with another"  # noqa: PLR2004  (its number)
        raised = SerializationConflict(
            f"{name}: the transaction {words}, and was undone (error {code})", provider=name, code=code
        )
        again = stage == "statement" and effect is not Effect.TOUCHES  # it was a transaction of its own
    elif number == READ_ONLY and stage == "statement":
        raised = ConnectionFailed(
            f"{name}: the database takes no writes: it is a secondary, or was set read-only", provider=name, code=code
        )
    elif number in TRANSIENT and stage == "commit":
        raised = OutcomeUnknown(
            f"{name}: the server does not say whether the commit was done (error {code})", provider=name, code=code
        )
    elif number in TRANSIENT:
        raised = ConnectionFailed(
            f"{name}: {_passing(number)} (error {number})",
            provider=name, code=code, retry="transaction" if stage == "transaction" else "safe",
        )  # fmt: skip
        # The server has answered that it did not do it. A batch may have done a part of it before.
        again = stage == "statement" and effect is not Effect.TOUCHES
        if stage == "statement" and effect is Effect.TOUCHES:
            raised.retry = "never"
    else:
        words = WORDS.get(number) or STATES.get(error.sqlstate, "the server refused the statement")
        where = f", in line {error.line} of the statement" if number in _SYNTAX and error.line > 1 else ""
        raised = QueryRejected(f"{name}: {words}{where} (error {code})", provider=name, code=code)
    rest = 10.0 if number == THROTTLED else 0.0
    return Fault(_caused(raised, error.kind, code, constraint), fate, again, rest)


def _violation(number: int, constraint: str | None) -> str:
    if number == NULL:
        return f"not-null constraint on {constraint} violated" if constraint else "not-null constraint violated"
    return f"{CONSTRAINTS[number]}{f' {constraint}' if constraint else ''} violated"


def _passing(number: int) -> str:
    if number == THROTTLED:
        return "the service is busy, and asks to be left alone for ten seconds"
    if number in {10928, 10929, 40642, 49918, 49919, 49920}:
        return "a limit of the database's service tier is reached"
    if number in {1204, 1222}:
        return "the server could not get a lock"
    return "the database is not available just now"


# ---- connecting -----------------------------------------------------------------------------------------------------


def missing_libraries(name: str) -> ConfigurationError:
    """What to say where Microsoft's driver does not load."""
    return ConfigurationError(
        f"{name}: mssql-python needs libraries of the system that are not there: on Debian and Ubuntu, "
        "apt-get install libltdl7 libkrb5-3 libgssapi-krb5-2; or use driver='python-tds' "
        "(pip install 'datavern[azuresql-tds]'), which needs none"
    )


def connecting(error: Exception, *, name: str, host: str, port: int, database: str, who: str) -> DatavernError:
    """What to make of an error while a connection was made: says what to do about it.

    Args:
        error: of a `Wire`, of the socket, or ours already.
        who: the user's name, or what stands for it.
    """
    if isinstance(error, DatavernError):
        return error
    where = f"{host}:{port}"
    kind = str(getattr(error, "kind", "")) or f"{type(error).__module__}.{type(error).__qualname__}"
    code: str | None = None
    if isinstance(error, Refused):
        code = str(error.number) if error.number else error.sqlstate or None
        message, final = _login_message(error)
    else:
        message, final = _network_message(error)
    text = message.format(where=where, user=who, database=database)
    raised = ConnectionFailed(f"{name}: {text}", provider=name, code=code, retry="never" if final else "safe")
    return _caused(raised, kind, code)


def _login_message(error: Refused) -> tuple[str, bool]:  # noqa: PLR0911  (one for each kind of error)
    if error.number in LOGIN:
        return LOGIN[error.number], error.number in FINAL_LOGIN
    if error.number in TRANSIENT_LOGIN:
        return f"the server at {{where}} takes no connection just now (error {error.number})", False
    if error.number:
        return f"the server at {{where}} refused the connection (error {error.number})", False
    if error.sqlstate == "28000":
        return LOGIN[18456], True
    if error.sqlstate in {"HYT00", "HYT01"}:
        return "the server at {where} did not answer in time (connect_timeout)", False
    if error.sqlstate == "08001":
        return "nobody answers at {where}, or its certificate does not verify: check host, port and tls", False
    return f"the server at {{where}} refused the connection (SQLSTATE {error.sqlstate or 'unknown'})", False


def _network_message(error: BaseException) -> tuple[str, bool]:  # noqa: PLR0911  (one for each kind of error)
    """What to say where no server answered, and whether trying again is pointless."""
    import socket  # noqa: PLC0415  (asyncio has loaded both)
    import ssl  # noqa: PLC0415  (the same)

    if isinstance(error, ssl.SSLCertVerificationError):
        reason = str(getattr(error, "verify_message", "") or "not valid").replace("{", "(").replace("}", ")")
        return (
            "the certificate of the server at {where} does not verify (" + reason + "): check host, tls.ca_file and "
            "tls.server_name"
        ), True
    if isinstance(error, ssl.SSLError):
        return "TLS with the server at {where} failed: check tls", True
    if type(error).__name__ == "NoEncryption":
        return "the server at {where} does not speak TLS, and nothing is sent without it: turn it on there", True
    if isinstance(error, TimeoutError):
        return "the server at {where} did not answer in time (connect_timeout)", False
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at {where}: check host and port, and that the server runs", False
    if isinstance(error, socket.gaierror):
        return "the host of {where} is not known to the name service: check host", False
    return "the connection to {where} could not be made", False
