"""mssql-python, Microsoft's own driver, as a `Wire`.

Its parameters are bound on the server; its connections are its own to keep, and are not pooled by it. What it tells of
an error is text: the numbers are read from the statement's diagnostic records, before the driver frees them.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import mssql_python
from mssql_python import ddbc_bindings
from mssql_python.cursor import Cursor

from datavern.engines.azuresql.rows import AzureSQLRow, maker
from datavern.engines.azuresql.statements import places
from datavern.engines.azuresql.wire import Answer, Lost, Refused, Unfit, Unread, named

if TYPE_CHECKING:
    from datavern.engines.azuresql.settings import AzureSQLSettings

__all__ = ["NoLibraries", "ODBCWire", "connection_string"]

_ACCESS_TOKEN: Final = 1256
"""SQL_COPT_SS_ACCESS_TOKEN (msodbcsql.h)."""
_RESET: Final = 116
"""SQL_ATTR_RESET_CONNECTION (sqlext.h)."""
_NATIVE: Final = re.compile(r"\((-?\d+)\)")
_STATE: Final = re.compile(r"\[(?:SQLSTATE:)?([0-9A-Z]{5})\]")
_GONE: Final = frozenset({"08S01", "08003", "08007", "01002"})
_MISSING: Final = "load the driver"
"""What the driver says where a system library is not there: "Failed to load the driver"."""


class NoLibraries(Exception):
    """The driver's own library does not load: it misses others of the system."""


class _Cursor(Cursor):
    """A cursor that keeps what the server said: the driver throws it away with its handle."""

    said: list[tuple[str, str]]

    def _reset_cursor(self) -> None:
        self.said = _records(getattr(self, "hstmt", None))
        super()._reset_cursor()


def _records(handle: Any) -> list[tuple[str, str]]:
    """Kind and text of each diagnostic record of a handle."""
    if handle is None:
        return []
    try:
        found = ddbc_bindings.DDBCSQLGetAllDiagRecords(handle)  # type: ignore[attr-defined]  # compiled
    except Exception:  # noqa: BLE001  (then there is nothing to be had)
        return []
    return [(str(kind), str(text)) for kind, text in found]


class ODBCWire:
    """A connection. Made by `connect`; see `datavern.engines.azuresql.wire.Wire`."""

    def __init__(self, connection: Any, *, name: str) -> None:
        self._connection = connection
        self._cursor: Any = _Cursor(connection)
        self._cursor.said = []
        self._name = name
        self._make: Callable[[Any], AzureSQLRow] | None = None
        self.columns: tuple[str, ...] = ()

    @classmethod
    def connect(cls, settings: AzureSQLSettings, *, password: str | None, token: str | None) -> ODBCWire:
        """Connect and sign in.

        Raises:
            Refused: the server does not let us in, or nobody answers: `sqlstate` says which.
            NoLibraries: see there.
        """
        from mssql_python.pooling import PoolingManager  # noqa: PLC0415  (with the driver)

        if not PoolingManager.is_initialized():  # nobody has said anything: two pools around one connection help nobody
            mssql_python.pooling(enabled=False)
        attributes: dict[int, Any] = {}
        if token is not None:
            data = token.encode("utf-16-le")
            attributes[_ACCESS_TOKEN] = struct.pack("<i", len(data)) + data
        text = connection_string(settings, password=password)
        patience = max(1, round(settings.connect_timeout))

        def connect() -> Any:
            return mssql_python.connect(text, autocommit=True, attrs_before=attributes or None, timeout=patience)

        wire = cls(_heard(connect, None, sent=False), name=settings.name)
        wire.run("SET LANGUAGE us_english", ())  # constraints are named in messages, and those are read in English
        return wire

    # ---- statements -------------------------------------------------------------------------------------------------

    def run(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Run a text and read all that it gives."""
        cursor = self._cursor
        self._execute(sql, parameters)

        def read() -> Answer:
            answer = Answer()
            while True:
                if cursor.description:
                    names = tuple(column[0] for column in cursor.description)
                    rows = list(map(maker(names), cursor.fetchall()))
                    answer.names.append(names)
                    answer.sets.append(rows)
                    answer.count = len(rows)
                elif cursor.rowcount >= 0:
                    answer.count = answer.changed = cursor.rowcount
                if not cursor.nextset():
                    return answer

        return _heard(read, cursor, sent=True)  # type: ignore[no-any-return]  # an Answer

    def begin(self, sql: str, parameters: Sequence[Any]) -> None:
        """Run a text and read nothing yet."""
        cursor = self._cursor
        self._execute(sql, parameters)

        def first() -> None:
            while not cursor.description and cursor.nextset():
                pass

        _heard(first, cursor, sent=True)
        self.columns = tuple(column[0] for column in cursor.description or ())
        self._make = maker(self.columns) if cursor.description else None

    def rows(self, most: int) -> list[AzureSQLRow]:
        """The next rows."""
        make, cursor = self._make, self._cursor
        if make is None:
            return []
        return _heard(lambda: list(map(make, cursor.fetchmany(most))), cursor, sent=True)  # type: ignore[no-any-return]

    def end(self) -> None:
        """Leave what `begin` began: a new handle ends the old one's answer."""
        self._make = None
        _heard(self._cursor._reset_cursor, self._cursor, sent=True)  # noqa: SLF001  (it has no other way)

    def settle(self) -> None:
        """After an interruption: the driver waits for its acknowledgement itself."""
        self.end()

    def reset(self) -> None:
        """Make the session as new."""
        self.end()
        self.run("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION", ())
        # As the driver's own pool does it: the protocol's bit in the head of the next request.
        _heard(lambda: self._connection._conn.set_attr(_RESET, 1), None, sent=True)  # noqa: SLF001  (set_attr refuses it)
        self.run("SET LANGUAGE us_english; SET TRANSACTION ISOLATION LEVEL READ COMMITTED", ())

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open: ODBC does not tell, so the server is asked."""
        return bool(self.run("SELECT @@TRANCOUNT", ()).sets[0][0][0])

    # ---- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye."""
        with contextlib.suppress(Exception):
            self._connection.close()

    def interrupt(self) -> None:
        """SQLCancel: the one call that ODBC lets another thread make."""
        handle = getattr(self._cursor, "hstmt", None)
        with contextlib.suppress(Exception):
            if handle is not None:
                handle._cancel()  # noqa: SLF001  (as the driver's own Arrow reader does)

    def abort(self) -> None:
        """Its socket is out of reach: what runs is cancelled, and its thread closes the connection in the end."""
        self.interrupt()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _execute(self, sql: str, parameters: Sequence[Any]) -> None:
        cursor = self._cursor
        if not parameters:
            _heard(lambda: cursor.execute(sql), cursor, sent=False)
            return
        found = places(sql)
        assert found is not None  # noqa: S101  (for the type checker: the provider has counted them)
        given = [parameters[number - 1] for number in found.numbers]
        text = found.marked()
        _heard(lambda: cursor.execute(text, given), cursor, sent=False)


def connection_string(settings: AzureSQLSettings, *, password: str | None) -> str:
    """What ODBC connects with. Each value is in braces, so that it is only a value."""
    tls = settings.effective_tls
    parts = {
        "Server": f"tcp:{settings.host},{settings.port}",
        "Database": settings.database,
        "Encrypt": "yes",
        "TrustServerCertificate": "yes" if tls.verify == "none" else "no",
        "ConnectRetryCount": "0",  # a connection that breaks is ours to judge
    }
    if tls.server_name:
        parts["HostNameInCertificate"] = tls.server_name
    if settings.read_only_intent:
        parts["ApplicationIntent"] = "ReadOnly"
    if settings.signs_in_by == "sql":
        parts |= {"UID": settings.username or "", "PWD": password or ""}
    return ";".join(f"{key}={{{value.replace('}', '}}')}}}" for key, value in parts.items())


def _heard(work: Callable[[], Any], cursor: Any, *, sent: bool) -> Any:
    """Do it; the driver's errors become those of `wire`, outside of its own ``except``, so that no text travels on."""
    raised: Exception
    try:
        return work()
    except (mssql_python.Error, RuntimeError) as error:
        raised = _translated(error, cursor)
    except (UnicodeError, ValueError, TypeError, OverflowError) as error:
        raised = Unfit(_kind(error)) if not sent else Unread(_kind(error))
    raise raised


def _kind(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _translated(error: BaseException, cursor: Any) -> Exception:
    text = str(error)
    if _MISSING in text:
        return NoLibraries()
    records = list(getattr(cursor, "said", ()) or ()) or _records(getattr(cursor, "hstmt", None))
    if cursor is not None:
        cursor.said = []
    state, number, message = "", 0, text
    for kind, said in records:
        native = _NATIVE.search(kind)
        state = (found[1] if (found := _STATE.search(kind)) else "") or state
        if native and int(native[1]) not in {0, 3621}:  # "The statement has been terminated" is no news
            number, message = int(native[1]), said
            break
    state = state or _STATES.get(_driver_words(error), "")
    if state in _GONE:
        return Lost(_kind(error))
    if number or state:
        return Refused(_kind(error), number, sqlstate=state, constraint=named(number, message))
    return Refused(_kind(error), 0, sqlstate="HY000")


def _driver_words(error: BaseException) -> str:
    return str(getattr(error, "driver_error", ""))


_STATES: Final = {
    "Communication link failure": "08S01",
    "Client unable to establish connection": "08001",
    "Connection timeout expired": "HYT01",
    "Timeout expired": "HYT00",
    "Invalid authorization specification": "28000",
    "Connection not open": "08003",
    "Connection failure during transaction": "08007",
    "Disconnect error": "01002",
    "Serialization failure": "40001",
}
"""What the driver makes of a SQLSTATE, which it does not pass on (mssql_python/exceptions.py)."""
