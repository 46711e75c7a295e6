"""Connections on threads of their own: what the pool needs of this engine.

The drivers block, so each connection has a thread that speaks for it, and the loop waits for its answers. Nobody ever
waits for the thread: a server that does not answer leaves it behind, and the connection is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from datavern.connectors.retry import backoff
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError
from datavern.engines.azuresql.errors import connecting, missing_libraries
from datavern.engines.azuresql.numbers import THROTTLED, TRANSIENT_LOGIN
from datavern.engines.azuresql.tokens import Identity

if TYPE_CHECKING:
    from datavern.engines.azuresql.settings import AzureSQLSettings
    from datavern.engines.azuresql.wire import Wire

__all__ = ["AzureSQLConnection", "AzureSQLConnector"]

THROTTLED_REST: Final = 10.0
"""Seconds that the service asks for when it is busy (error 40501)."""
_GRACE: Final = 1.0
"""Seconds beyond `connect_timeout` that a driver gets to keep it by itself."""


class AzureSQLConnection:
    """A `Wire`, and the thread that speaks through it."""

    __slots__ = ("_jobs", "_loop", "_pending", "_quiet", "dead", "wire")

    def __init__(self, name: str) -> None:
        self.wire: Wire = None  # type: ignore[assignment]  # until it is connected, nobody has it
        self.dead = False
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[asyncio.Future[Any] | None, Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self._pending = 0
        self._quiet: asyncio.Future[None] | None = None
        thread = threading.Thread(target=_speak, args=(self._jobs, self._loop, self), name=f"datavern-{name}")
        thread.daemon = True  # one that a frozen server holds must not hold the process
        thread.start()

    def open(self, connect: Callable[[], Wire]) -> None:
        """On the thread: connect. Where the connection was let go meanwhile, it is closed when it is there."""
        self.wire = connect()

    async def call(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do it on the thread. Cancelled, it goes on there: `busy` says so, until `settle`."""
        future = self._loop.create_future()
        self._pending += 1
        self._jobs.put((future, work, args))
        return await future

    @property
    def busy(self) -> bool:
        """Whether something runs on the thread."""
        return self._pending > 0

    async def settle(self) -> None:
        """Stop what still runs, as it was cancelled, and be in step with the server again. May be cancelled."""
        if self._pending:
            _aside(self.wire.interrupt)
            await self._silence()
        await self.call(self.wire.settle)

    async def _silence(self) -> None:
        while self._pending:
            if self._quiet is None or self._quiet.done():
                self._quiet = self._loop.create_future()
            await asyncio.shield(self._quiet)

    def leave(self) -> None:
        """Let go without waiting for anything. Idempotent; never raises."""
        if self.dead:
            return
        self.dead = True
        if self.wire is not None and self._pending:
            _aside(self.wire.abort)  # it may have to wait for the driver's own lock
        self._jobs.put((None, self._close, ()))  # without a future: the last job

    def _close(self) -> None:
        """On the thread: the last thing that it does."""
        if self.wire is not None:
            self.wire.close()

    def _done(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """On the loop: a job is done."""
        self._pending -= 1
        if not self._pending and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)
        if future.done():
            return  # cancelled meanwhile
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _speak(jobs: SimpleQueue[Any], loop: asyncio.AbstractEventLoop, connection: AzureSQLConnection) -> None:
    """The thread of a connection."""
    while True:
        future, work, args = jobs.get()
        result, failed = None, None
        try:
            result = work(*args)
        except BaseException as error:  # noqa: BLE001  (raised where it is awaited)
            failed = error
        if future is None:
            return
        try:
            loop.call_soon_threadsafe(connection._done, future, result, failed)  # noqa: SLF001  (the same file)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            connection._close()  # noqa: SLF001  (the same)
            return
        del future, work, args, result, failed  # an answer is not kept until the next one comes


def _aside(work: Callable[[], None]) -> None:
    """Do it on a thread that nobody waits for: drivers may hold on to theirs."""
    threading.Thread(target=work, name="datavern-aside", daemon=True).start()


class AzureSQLConnector:
    """Connects with one provider's settings.

    Args:
        settings: of the provider.
        patient: try again what Microsoft documents as passing, for `retry` seconds.
    """

    def __init__(self, settings: AzureSQLSettings, *, patient: bool = True) -> None:
        self._settings = settings
        self._patience = settings.retry if patient else 0.0
        self._identity = Identity(settings)
        self._opener: Callable[..., Any] | None = None

    async def connect(self, lost: Callable[[], None]) -> AzureSQLConnection:  # noqa: ARG002  (drivers do not tell)
        """A new connection. What Microsoft documents as passing is tried again, for `retry` seconds.

        Raises:
            ConnectionFailed: with what to do about it.
            ConfigurationError: the driver, one of its libraries, or the password's source is not there.
        """
        settings = self._settings
        deadline = time.monotonic() + self._patience
        attempt, renewed = 0, False
        while True:
            attempt += 1
            failure: ConnectionFailed
            try:
                return await self._once()
            except ConnectionFailed as error:
                failure = error
            number = int(failure.code) if failure.code and failure.code.isdecimal() else 0
            if number == 18456 and settings.signs_in_by != "sql" and not renewed:  # noqa: PLR2004  (login failed)
                self._identity.refused()  # the token may have been revoked before its time
                renewed = True
                continue
            rest = THROTTLED_REST if number == THROTTLED else backoff(attempt, base=0.5, longest=8.0)
            if number not in TRANSIENT_LOGIN or time.monotonic() + rest > deadline:
                raise failure
            await asyncio.sleep(rest)

    async def _once(self) -> AzureSQLConnection:
        settings = self._settings
        failure: DatavernError
        connection: AzureSQLConnection | None = None
        try:
            async with asyncio.timeout(settings.connect_timeout + _GRACE):
                password, token = await self._identity.password(), await self._identity.token()
                connection = AzureSQLConnection(settings.name)
                if self._opener is None:
                    self._opener = await connection.call(_opener, settings)
                await connection.call(connection.open, functools.partial(self._opener, password=password, token=token))
                return connection
        except Exception as error:  # noqa: BLE001  (each becomes an error of ours, outside this block)
            failure = self._explained(error)
        except BaseException:
            if connection is not None:
                connection.leave()
            raise
        if connection is not None:
            connection.leave()
        raise failure

    def _explained(self, error: Exception) -> DatavernError:
        settings = self._settings
        if type(error).__name__ == "NoLibraries":
            return missing_libraries(settings.name)
        return connecting(
            error, name=settings.name, host=settings.host, port=settings.port, database=settings.database,
            who=self._identity.name,
        )  # fmt: skip

    async def close(self, connection: AzureSQLConnection) -> None:
        """Say goodbye."""
        with contextlib.suppress(Exception):
            await connection.call(connection.wire.close)
        connection.leave()

    def abort(self, connection: AzureSQLConnection) -> None:
        """Let go without waiting."""
        connection.leave()

    async def probe(self, connection: AzureSQLConnection) -> None:
        """One round trip."""
        await connection.call(connection.wire.run, "SELECT 1", ())

    async def reset(self, connection: AzureSQLConnection) -> None:
        """Stop what runs, and make the session as new."""
        if connection.busy:
            await connection.settle()
        await connection.call(connection.wire.reset)

    def healthy(self, connection: AzureSQLConnection) -> bool:
        """Whether it was not let go."""
        return not connection.dead


def _opener(settings: AzureSQLSettings) -> Callable[..., Wire]:
    """What connects, with the driver that the settings name. On a thread: a driver takes its time to load.

    Raises:
        ConfigurationError: it is not installed, or a certificate file cannot be read.
    """
    pure = settings.driver == "python-tds"
    module = "tds" if pure else "odbc"
    missing = ""
    try:
        driver = importlib.import_module(f"datavern.engines.azuresql.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("datavern"):
            raise
        missing = error.name or ""
    except ImportError:
        missing = "libraries"
    if missing == "libraries":
        raise missing_libraries(settings.name)
    if missing:
        extra = "azuresql-tds" if pure else "azuresql"
        raise ConfigurationError(
            f"{settings.name}: driver={settings.driver!r} needs {missing}: pip install 'datavern[{extra}]'"
        )
    if pure:
        from datavern.engines.azuresql.tds_tls import tls_context  # noqa: PLC0415  (with its driver)

        context = tls_context(settings.effective_tls, f"{settings.name}.tls")
        return functools.partial(driver.TDSWire.connect, settings, context)
    return functools.partial(driver.ODBCWire.connect, settings)
