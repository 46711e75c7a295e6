"""python-tds as a `Wire`: TDS in pure Python, over a socket of our own.

`pytds.connect` makes its socket itself, retries by itself and cannot verify a host name with a current pyOpenSSL, so
its parts are put together here, as it does it: `_TdsLogin`, `_TdsSocket`, and the session's submit and read calls. They
are not its public face; the version is bounded in ``pyproject.toml``, and tests watch each of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytds import lcid, tds_base
from pytds.tds_socket import _TdsSocket

from datavern.engines.azuresql.rows import AzureSQLRow, maker
from datavern.engines.azuresql.statements import places
from datavern.engines.azuresql.tds_parameters import parameter
from datavern.engines.azuresql.tds_tls import TDSSocket
from datavern.engines.azuresql.wire import Answer, Lost, Refused, Unfit, Unread, named

if TYPE_CHECKING:
    import ssl

    from datavern.engines.azuresql.loading import LoadColumn
    from datavern.engines.azuresql.settings import AzureSQLSettings

__all__ = ["TDSWire"]

_LOGIN_FAILED: Final = 18456
_ROUTES: Final = 3
"""How often a server may send us on to another: Azure's gateway does it once."""

# It writes the beginning of each statement to its log, where a literal may stand that is nobody's business.
logging.getLogger("pytds").setLevel(logging.WARNING)


class TDSWire:
    """A connection. Made by `connect`; see `datavern.engines.azuresql.wire.Wire`."""

    def __init__(self, session: Any, transport: TDSSocket, *, name: str) -> None:
        self._session = session
        self._transport = transport
        self._name = name
        self._make: Callable[[Any], AzureSQLRow] | None = None
        self.columns: tuple[str, ...] = ()
        self._writing = threading.Lock()  # an interruption goes between two requests, never into one
        self._interrupted = False  # an attention signal was sent whose acknowledgement is still to be read

    @classmethod
    def connect(
        cls, settings: AzureSQLSettings, context: ssl.SSLContext, *, password: str | None, token: str | None
    ) -> TDSWire:
        """Connect and sign in, all within `connect_timeout`.

        Raises:
            Refused: the server does not let us in.
            Lost: it went away meanwhile.
            OSError: nobody answers, or TLS fails (`ssl.SSLError`).
            NoEncryption: the server does not speak TLS.
        """
        deadline = time.monotonic() + settings.connect_timeout
        host, port = settings.host, settings.port
        server_name = settings.effective_tls.server_name or host
        for _ in range(_ROUTES):
            login = _login(settings, host, port, password=password, token=token)
            connected = socket.create_connection((host, port), timeout=max(0.05, deadline - time.monotonic()))
            transport = TDSSocket(connected, context, server_name)
            try:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                tds = _TdsSocket(sock=transport, login=login, row_strategy=lambda _: tuple, autocommit=True)
                route = _signed_in(tds)
                if route is None:
                    transport.settimeout(None)
                    return cls(tds.main_session, transport, name=settings.name)
            except BaseException:
                transport.close()
                raise
            transport.close()
            host, port = str(route["server"]).partition("\\")[0], int(route["port"])
            server_name = settings.effective_tls.server_name or host
        raise Lost("a server that sends us on without end")

    # ---- statements -------------------------------------------------------------------------------------------------

    def run(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Run a text and read all that it gives."""
        return self._answered(self._submit(sql, parameters))

    def load(self, text: str, columns: Sequence[LoadColumn], rows: Sequence[Sequence[Any]]) -> Answer:
        """Load rows in bulk.

        Args:
            text: the INSERT BULK, after which the server waits for the rows.
            columns: what it lists.
            rows: their values, of the columns' types: what the driver cannot encode breaks the connection (`Unread`).
        """
        from datavern.engines.azuresql.tds_bulk import described  # noqa: PLC0415  (with the first)

        self.run(text, ())
        session = self._session
        with self._writing:
            _heard(lambda: session.submit_bulk(described(columns), rows), self._drain)
        return self._answered(_heard(self._began, self._drain))

    def _answered(self, more: bool) -> Answer:
        """Read all of an answer whose beginning is there."""
        answer = Answer()
        session = self._session
        while True:
            gives = more and session.res_info is not None and session.more_rows
            if gives:
                names = tuple(column[0] for column in session.res_info.description)
                make = maker(names)
                answer.names.append(names)
                answer.sets.append(_heard(partial(_all, make, session), self._drain))
            if session.rows_affected >= 0:
                answer.count = session.rows_affected
                answer.changed = answer.changed if gives else answer.count
            if self._interrupted:
                self.settle()
            if session.state == tds_base.TDS_IDLE:
                return answer
            session.res_info = None
            more = _heard(session.find_result_or_done, self._drain)

    def begin(self, sql: str, parameters: Sequence[Any]) -> None:
        """Run a text and read nothing yet."""
        more = self._submit(sql, parameters)
        session = self._session
        while not (more and session.res_info is not None) and session.state != tds_base.TDS_IDLE:
            if self._interrupted:
                self.settle()
            else:
                more = _heard(session.find_result_or_done, self._drain)
        self._make, self.columns = None, ()
        if session.res_info is not None:
            self.columns = tuple(column[0] for column in session.res_info.description)
            self._make = maker(self.columns)

    def rows(self, most: int) -> list[AzureSQLRow]:
        """The next rows."""
        make, session = self._make, self._session
        if make is None:
            return []

        def read() -> list[AzureSQLRow]:
            found = []
            for _ in range(most):
                row = session.fetchone()
                if row is None:
                    break
                found.append(make(row))
            if len(found) < most:  # what follows is not asked for, but an error in it is one
                self._make = None
                while session.state != tds_base.TDS_IDLE and not self._interrupted:
                    session.next_set()
            return found

        return _heard(read, self._drain)  # type: ignore[no-any-return]  # it is that list

    def end(self) -> None:
        """Leave what `begin` began."""
        self._make = None
        self.interrupt()
        self.settle()

    def settle(self) -> None:
        """After an interruption: read on until the server has acknowledged it.

        The acknowledgement may have been read already, or be still on its way behind a whole answer: what was read
        last tells which.
        """
        with self._writing:
            interrupted, self._interrupted = self._interrupted, False
        session = self._session
        if interrupted and not session.done_flags & tds_base.TDS_DONE_CANCELLED:
            session.in_cancel = True
            if session.state == tds_base.TDS_IDLE:
                session.state = tds_base.TDS_PENDING
            _heard(session.process_cancel, self._drain)
        session.in_cancel = False

    def reset(self) -> None:
        """Make the session as new."""
        session = self._session
        if session.state != tds_base.TDS_IDLE:
            self.interrupt()
        self.settle()
        session.res_info = None
        if self.in_transaction:
            self.run("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION", ())
        # What pools ask for with a bit in the next request's head: temporary tables, settings, application locks and
        # the database in use are as they were after signing in. Not on every version the level of isolation, so it is
        # what is set with that request.
        self._transport.reset_session()
        self.run("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", ())

    @property
    def in_transaction(self) -> bool:
        """Whether the server has told that a transaction is open."""
        return bool(self._session.conn.tds72_transaction)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """TDS has no goodbye but the end of the connection, upon which the server rolls back."""
        self.abort()

    def interrupt(self) -> None:
        """Send an attention signal; whoever reads the answer finds it acknowledged."""
        session = self._session
        with contextlib.suppress(Exception), self._writing:
            if session.state != tds_base.TDS_IDLE and not self._interrupted:
                self._interrupted = session.in_cancel = True  # before it is sent: the answer may be quicker than we are
                session.done_flags = 0
                session._writer.begin_packet(tds_base.PacketType.CANCEL)  # noqa: SLF001  (as put_cancel does)
                session._writer.flush()  # noqa: SLF001  (the same)

    def abort(self) -> None:
        """Close the socket."""
        self._transport.shutdown()
        self._transport.close()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _submit(self, sql: str, parameters: Sequence[Any]) -> bool:
        """Send it and wait for the answer's beginning; whether there is a result set."""
        session = self._session
        if not parameters:
            with self._writing:
                _heard(lambda: session.submit_plain_query(sql))
        else:
            found = places(sql)
            assert found is not None  # noqa: S101  (for the type checker: the provider has counted them)
            nulls = tuple(number for number, value in enumerate(parameters, 1) if value is None)
            text = found.without(nulls) if nulls else sql
            given = [parameter(f"@P{n}", value) for n, value in enumerate(parameters, 1) if value is not None]
            with self._writing:
                if not given:
                    _heard(lambda: session.submit_plain_query(text))
                else:
                    declared = ",".join(f"{p.name} {p.type.get_declaration()}" for p in given)
                    call = [parameter("", text), parameter("", declared), *given]
                    _heard(lambda: session.submit_rpc(tds_base.SP_EXECUTESQL, call, 0))

        return _heard(self._began, self._drain)  # type: ignore[no-any-return]  # a bool

    def _began(self) -> bool:
        """Wait for an answer's beginning; whether there is a result set."""
        session = self._session
        session.begin_response()
        return bool(session.find_result_or_done())

    def _drain(self) -> None:
        """Read what is left of an answer that ended with an error, so that the next begins where it should."""
        session = self._session
        while session.state not in {tds_base.TDS_IDLE, tds_base.TDS_DEAD}:
            try:
                session.next_set()
            except tds_base.ClosedConnectionError:
                raise
            except tds_base.DatabaseError:
                continue


def _all(make: Callable[[Any], AzureSQLRow], session: Any) -> list[AzureSQLRow]:
    found = []
    while (row := session.fetchone()) is not None:
        found.append(make(row))
    return found


def _heard(work: Callable[[], Any], after: Callable[[], None] | None = None) -> Any:
    """Do it; the driver's errors become those of `wire`, outside of its own ``except``, so that no text travels on.

    Args:
        work: what is done with the driver.
        after: reads the rest of an answer in which there was an error.
    """
    raised: Exception
    try:
        return work()
    except tds_base.DatabaseError as error:
        raised = _refused(error)
    except (tds_base.ClosedConnectionError, OSError) as error:  # a broken TLS is an OSError, too
        raised = Lost(_kind(error))
    except (tds_base.DataError, struct.error, ArithmeticError, UnicodeEncodeError) as error:
        raised = Unfit(_kind(error)) if after is None else Unread(_kind(error))
    except tds_base.Error as error:
        raised = Lost(_kind(error))
    except (ValueError, TypeError, OverflowError) as error:
        raised = Unfit(_kind(error)) if after is None else Unread(_kind(error))
    if isinstance(raised, Refused) and after is not None:
        try:
            after()
        except Exception as error:  # noqa: BLE001  (the server has said why, and hung up)
            raised.severity = max(raised.severity, 20)
            raised.__context__ = None
            del error
    raise raised


def _signed_in(tds: Any) -> Any:
    """Sign in; the place that the server sends us to, if it does.

    A server that cannot open the database says so first, and then that the login failed: the first is the reason.

    Raises:
        Refused: the server does not let us in.
        OSError: as the socket raises it.
    """
    raised: Refused | Lost
    try:
        return tds.login()
    except tds_base.DatabaseError as error:
        raised = _refused(error)
        told = [int(m["msgno"]) for m in tds.main_session.messages if m["marker"] == tds_base.TDS_ERROR_TOKEN]
        raised.number = next((number for number in told if number != _LOGIN_FAILED), raised.number)
    except OSError:  # a certificate that does not verify is one, and a ValueError too
        raise
    except (tds_base.Error, ValueError) as error:  # the server hung up, or the driver takes no such password
        raised = Lost(_kind(error))
    raise raised


def _kind(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _refused(error: Any) -> Refused:
    number = int(getattr(error, "number", 0) or 0)
    message = str(getattr(error, "text", "") or "")
    return Refused(
        _kind(error),
        number,
        severity=int(getattr(error, "severity", 0) or 0),
        constraint=named(number, message),
        procedure=str(getattr(error, "procname", "") or ""),
        line=int(getattr(error, "line", 0) or 0),
    )


def _login(settings: AzureSQLSettings, host: str, port: int, *, password: str | None, token: str | None) -> Any:
    """What the driver's own `connect` fills in."""
    login = tds_base._TdsLogin()  # noqa: SLF001  (see the module's docstring)
    login.client_host_name = socket.gethostname()[:128]
    login.library = "Datavern"
    login.server_name = host
    login.port = port
    login.user_name = settings.username or ""
    login.password = password or ""
    login.access_token = token
    login.app_name = settings.application_name
    login.language = "us_english"  # constraints are named in messages, and those are read in English
    login.database = settings.database
    login.client_lcid = lcid.LANGID_ENGLISH_US
    login.pid = os.getpid()
    login.client_id = uuid.getnode()
    login.enc_flag = tds_base.PreLoginEnc.ENCRYPT_NOT_SUP  # the socket encrypts
    login.option_flag2 = tds_base.TDS_ODBC_ON  # ANSI settings, as every other driver has them
    login.bulk_copy = True  # the session may load in bulk, as every other driver's may
    login.readonly = settings.read_only_intent
    login.bytes_to_unicode = True
    login.connect_timeout = settings.connect_timeout
    return login
