"""Making, probing, resetting and ending asyncpg's connections: what the pool needs of this engine."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

import asyncpg

from datavern.config import TLS
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError, DriverError
from datavern.engines.postgresql.connect_errors import connecting
from datavern.engines.postgresql.settings import PostgreSQLSettings
from datavern.engines.postgresql.shortcut import PooledConnection, ShortConnection, connection_class
from datavern.engines.tls import client_context

__all__ = ["RESET", "Json", "PostgreSQLConnector", "notice_silence", "tls_context"]

# As DISCARD ALL does (PostgreSQL documentation, DISCARD), in one round trip and without what would cost the next
# borrower its prepared statements: those that SQL made are dropped by name, those of the driver stay.
RESET = """
SET SESSION AUTHORIZATION DEFAULT;
RESET ROLE;
RESET ALL;
CLOSE ALL;
UNLISTEN *;
SELECT pg_catalog.pg_advisory_unlock_all();
DISCARD TEMP;
DISCARD SEQUENCES;
DO $datavern$
DECLARE made pg_catalog.name;
BEGIN
    FOR made IN SELECT p.name FROM pg_catalog.pg_prepared_statements p WHERE p.from_sql LOOP
        EXECUTE pg_catalog.format('DEALLOCATE %I', made);
    END LOOP;
END
$datavern$;
"""


_CONNECTION = connection_class()
_WHO = "SELECT pg_catalog.pg_backend_pid()"
"""Whose session it is. A pooler makes a number of its own up for its clients, to cancel with."""


class PostgreSQLConnector:
    """Connects with one provider's settings."""

    probe_statement = "SELECT 1"

    def __init__(self, settings: PostgreSQLSettings) -> None:
        self._settings = settings
        self._tls: ssl.SSLContext | bool | None = None
        self._pooled = None if settings.pooler is None else settings.pooler == "transaction"

    @property
    def pooled(self) -> bool:
        """Whether each transaction may have another session: a pooler is between. Known with the first connection."""
        return bool(self._pooled)

    async def connect(self, lost: Callable[[], None]) -> asyncpg.Connection:
        """A new connection, its JSON codecs set.

        Raises:
            ConnectionFailed: with what to do about it.
            ConfigurationError: a certificate file or the password's source is not there, or the probe fails.
            ResidencyViolation: the probe says that the server is further away than the settings do.
        """
        settings = self._settings
        if self._tls is None:
            self._tls = tls_context(settings.effective_tls, f"{settings.name}.tls")
        failure: Exception
        asked = False
        try:
            async with asyncio.timeout(settings.connect_timeout):
                password = await self._password()
                asked = True
                connection = await self._connected(password)
        except Exception as error:  # noqa: BLE001  (each becomes an error of ours, outside this block)
            failure = connecting(
                error,
                name=settings.name,
                host=settings.host,
                port=settings.port,
                database=settings.database,
                username=settings.username,
            )
            if not asked and isinstance(error, TimeoutError):
                failure = ConnectionFailed(
                    f"{settings.name}: the password's callable did not answer in time (connect_timeout)",
                    provider=settings.name,
                )
        else:
            await self._compared(connection)
            for name, encoder, decoder in _JSON_CODECS:  # known to the driver: no round trip
                await connection.set_type_codec(
                    name, schema="pg_catalog", encoder=encoder, decoder=decoder, format="binary"
                )
            notice_silence(connection._transport.get_extra_info("socket"))  # noqa: SLF001  (a test watches it)
            connection.add_termination_listener(lambda _: lost())
            return connection
        raise failure

    async def _compared(self, connection: asyncpg.Connection) -> None:
        """Whichever server answers, it is where the settings say: an address may lead to another one by now."""
        if self._settings.region_probe is None:
            return
        from datavern.engines.postgresql.whereabouts import compare  # noqa: PLC0415  (few servers are asked)

        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await compare(connection, self._settings)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, TimeoutError):
                name = self._settings.name
                raise ConnectionFailed(f"{name}.region_probe: gave no answer in time", provider=name) from None
            raise

    async def _connected(self, password: str | None) -> asyncpg.Connection:
        settings, pooled = self._settings, self._pooled
        connection = await asyncpg.connect(
            host=settings.host,
            port=settings.port,
            user=settings.username,
            password=password,
            database=settings.database,
            ssl=self._tls,
            timeout=None,
            statement_cache_size=settings.statement_cache if pooled is False else 0,
            server_settings={"application_name": settings.application_name},
            target_session_attrs="any",
            connection_class=PooledConnection if pooled else _CONNECTION,
        )
        if pooled is not None:
            return connection
        # Until it is known who answers, nothing is prepared that another session would not know.
        try:
            found = await connection.fetchval(_WHO) != connection.get_server_pid()
        except BaseException:
            connection.terminate()
            raise
        self._pooled = found
        if not found and type(connection) is ShortConnection:  # isinstance would be true for any of asyncpg's
            connection.remember(settings.statement_cache)
            return connection
        connection.terminate()
        return await self._connected(password)

    async def _password(self) -> str | None:
        secret = self._settings.password
        if secret is None:
            return None
        failed: BaseException | None = None
        value: Any = None
        try:
            value = secret.reveal()
            if inspect.isawaitable(value):
                value = await value
        except DatavernError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failed = error  # something of its own was cancelled, and not this
        except Exception as error:  # noqa: BLE001  (what it says may hold the secret: only its type is passed on)
            failed = error
        if failed is not None:
            kind, name = type(failed).__name__, self._settings.name
            raise ConnectionFailed(f"{name}: the password's callable raised {kind}", provider=name) from DriverError.of(
                failed, None, None
            )
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{self._settings.name}.password: the callable gave {type(value).__name__}, expected str"
            )
        return value

    async def close(self, connection: asyncpg.Connection) -> None:
        """Say goodbye."""
        await connection.close()

    def abort(self, connection: asyncpg.Connection) -> None:
        """Let go without waiting."""
        if not connection.is_closed():
            connection.terminate()

    async def probe(self, connection: asyncpg.Connection) -> None:
        """One round trip."""
        await connection.execute("SELECT 1")

    async def reset(self, connection: asyncpg.Connection) -> None:
        """One round trip, and another where a transaction is open."""
        for _ in range(2):
            if connection.is_in_transaction():
                await connection.execute("ROLLBACK")
            if self._pooled:  # the next transaction has another session: there is none to reset
                await connection.execute("SELECT 1")
                if not connection.is_in_transaction():
                    return
                continue
            # The driver first waits for the answer to a statement that was cancelled. Where that was a BEGIN, this is
            # where the open transaction shows, and the reset made in it counts for nothing.
            await connection.execute(RESET)
            if not connection.is_in_transaction():
                return

    def healthy(self, connection: asyncpg.Connection) -> bool:
        """Whether the socket is open, as far as the driver knows."""
        return not connection.is_closed()


_dumps = functools.partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Json(str):
    """Text that is JSON already. SQLAlchemy's types write theirs by themselves, ``null`` among it."""

    __slots__ = ()

    dumped = staticmethod(_dumps)


def _to_json(value: Any) -> str:
    return value if type(value) is Json else _dumps(value)


# In binary form, since COPY knows no other: the text itself, and for jsonb a version number before it.
_JSON_CODECS: tuple[tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]], ...] = (
    ("json", lambda value: _to_json(value).encode(), lambda data: json.loads(str(data, "utf-8"))),
    ("jsonb", lambda value: b"\x01" + _to_json(value).encode(), lambda data: json.loads(str(data[1:], "utf-8"))),
)


SILENCE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 40_000}
"""Asked after 20 s of silence, given up after 40 s: seconds, and milliseconds (tcp(7))."""


def notice_silence(line: Any) -> None:
    """Have the operating system break a connection whose other end is gone, so that a call without a deadline ends.

    Args:
        line: the socket; nothing happens where it is none of TCP's, or the system does not know an option.
    """
    if line is None or line.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in SILENCE.items():
        option = getattr(socket, name, None)
        if option is not None:
            line.setsockopt(socket.IPPROTO_TCP, option, value)


class _NamedContext(ssl.SSLContext):
    """Verifies another name than the one that was connected to."""

    server_name: str

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        kwargs["server_hostname"] = self.server_name
        return super().wrap_bio(*args, **kwargs)


def tls_context(tls: TLS, path: str) -> ssl.SSLContext | bool:
    """What asyncpg takes as ``ssl``; False for no TLS.

    Raises:
        ConfigurationError: a file that cannot be read, or does not hold what it should.
    """
    if tls.verify == "off":
        return False
    if not tls.server_name:
        return client_context(tls, path, ssl.SSLContext)
    context = client_context(tls, path, _NamedContext)
    context.server_name = tls.server_name
    return context
