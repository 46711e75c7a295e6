"""Azure SQL and SQL Server, on Microsoft's driver or python-tds, and Datavern's own pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from datavern.config import TLS, Pool, Secret
from datavern.connectors.coalescing import CoalescedRead, check_read
from datavern.connectors.pool import Pool as ConnectionPool
from datavern.contracts.capabilities import Capabilities, Isolation
from datavern.contracts.errors import (
    ProviderError,
)
from datavern.contracts.values import Health, Location
from datavern.contracts.whereabouts import refuse_contradiction
from datavern.engines.ages import RelationalAges
from datavern.engines.azuresql.connection import AzureSQLConnector
from datavern.engines.azuresql.fused import AzureSQLGuarded, Fusing
from datavern.engines.azuresql.health import ASK, AzureSQLRoles, standing
from datavern.engines.azuresql.ledger import AzureSQLLedger
from datavern.engines.azuresql.numbers import THROTTLED
from datavern.engines.azuresql.point_reads import MOST, AzureSQLSource
from datavern.engines.azuresql.samples import AzureSQLSamples
from datavern.engines.azuresql.session import AzureSQLStatements, rest
from datavern.engines.azuresql.settings import AzureSQLSettings, parse_url
from datavern.engines.azuresql.statements import Effect, mapped_words
from datavern.engines.azuresql.subjects import AzureSQLSubjects
from datavern.engines.azuresql.transaction import AzureSQLTransaction, level
from datavern.engines.azuresql.whereabouts import AzureSQLWhereabouts
from datavern.engines.mapped import Mapped
from datavern.engines.people import RelationalPeople
from datavern.engines.pooling import PooledProvider

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from datavern.background import Background
    from datavern.contracts.capabilities import Services
    from datavern.engines.azuresql.bulk import BulkOptions, Rows
    from datavern.engines.azuresql.procedures import Output, ProcedureResult

__all__ = ["AzureSQLProvider"]

T = TypeVar("T")


class AzureSQLProvider(AzureSQLStatements, PooledProvider):
    """An Azure SQL or SQL Server database: see `datavern.contracts.capabilities.Provider` and `Session`.

    Args:
        name: unique within a manager; in messages.
        host: name or address of the server: ``kommune.database.windows.net``.
        port: TCP port.
        database: its name.
        username: of a SQL login; with ``authentication="managed-identity"`` the client id of a user-assigned identity.
        password: the text, `env()`, or a callable, sync or async, that is asked anew for each connection.
        token: an Entra access token for ``https://database.windows.net/``: a callable, sync or async, that gives it as
            text, with the time at which it expires (``(token, seconds since 1970)``), or as azure-identity's
            AccessToken; a new one is asked for before it expires.
        authentication: "sql", "token", "managed-identity" or "entra"; what follows from the rest when None. The last
            two need ``azure-identity``.
        driver: "mssql-python", Microsoft's own, or "python-tds", in pure Python.
        tls: full verification when None. Encryption is always on: ``verify="off"`` is refused.
        read_only_intent: ask for a readable secondary.
        pool: how many connections, and how long they live.
        location: where the data is; follows from `region` when that is given.
        region: a region identifier (``azure:norwayeast``).
        compliance: "gdpr", "nsm": the rule sets to enforce.
        connect_timeout: seconds that one attempt to connect may take.
        retry: seconds for which errors that Microsoft documents as transient are tried again.
        application_name: what the server's own views call these connections (python-tds).
        keyring: URL of a key ring, for use without a manager.

    Raises:
        ConfigurationError: a setting is wrong or contradicts another. No I/O happens here.
    """

    engine = "azuresql"
    kind = AzureSQLSettings
    _parse_url = staticmethod(parse_url)
    secrets = ("password", "token")

    def __init__(
        self,
        *,
        name: str = "azuresql",
        host: str = "127.0.0.1",
        port: int = 1433,
        database: str,
        username: str | None = None,
        password: str | Secret | Callable[[], Any] | None = None,
        token: str | Secret | Callable[[], Any] | None = None,
        authentication: str | None = None,
        driver: str = "mssql-python",
        tls: TLS | None = None,
        read_only_intent: bool = False,
        pool: Pool | None = None,
        location: Location | str | None = None,
        region: str | None = None,
        compliance: Iterable[str] = (),
        connect_timeout: float = 15.0,
        retry: float = 60.0,
        application_name: str = "datavern",
        keyring: str | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "name": name, "host": host, "port": port, "database": database, "username": username, "password": password,
            "token": token, "authentication": authentication, "driver": driver, "tls": tls,
            "read_only_intent": read_only_intent, "pool": Pool() if pool is None else pool, "location": location,
            "region": region, "compliance": compliance, "connect_timeout": connect_timeout, "retry": retry,
            "application_name": application_name, "keyring": keyring,
        }  # fmt: skip
        self._set_up(values, path=name if isinstance(name, str) else "name")

    def _set_up(self, values: dict[str, Any], *, path: str) -> None:
        self._begin_with(values, path=path)
        self._effects: dict[str, Effect] = {}
        self._audited: dict[str, Effect] = {}  # of texts that pass because their writes are audited
        self._subjects = AzureSQLSubjects(self)
        self._ledger = AzureSQLLedger(self)
        self._fusing = Fusing(self)
        self._capabilities = Capabilities(
            session=self,
            transactions=self,
            subjects=self._subjects,
            ages=RelationalAges(self, self._subjects),
            ledger=self._ledger,
            guarded=AzureSQLGuarded(self),
            samples=AzureSQLSamples(self),
            people=RelationalPeople(self, self._subjects),
            roles=AzureSQLRoles(self),
            whereabouts=AzureSQLWhereabouts(self),
            point_reads=self,
        )

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the pool and make the first connection. Idempotent.

        Raises:
            ConnectionFailed: says what to do about it.
            ConfigurationError: the driver or one of its libraries, a certificate file or the password's source is not
                there.
            ResidencyViolation: Azure says that the server is further away than the settings do.
        """
        async with self._connecting:
            if not self._pool.closed:
                return
            if self.location is not Location.GLOBAL:  # further away than that nothing is
                refuse_contradiction(self.name, self.location, await AzureSQLWhereabouts(self).said())
            pool = ConnectionPool(
                AzureSQLConnector(self.settings), self.settings.pool, name=self.name, alone=self.face is self
            )
            pool.start()
            try:
                within = self.settings.connect_timeout + self.settings.retry + 2.0
                pool.give(await pool.acquire(within=within, outage=0.0))
            except BaseException:
                await pool.close()
                raise
            self._pool = pool

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        self._services = services
        self._mapped = Mapped.of(self, services, subjects=self._subjects, read=mapped_words, folds=True)
        self._effects.clear()

    async def _ask(self) -> Health:
        """The role is what the database says of itself (``Updateability``).

        So the readable secondary of an active geo-replication, or of a service tier's read scale-out, is a secondary.
        """
        await self.query_value("SELECT 1")  # the connection is made and warm: the next answer's time is its own
        start = time.perf_counter()
        row = await self.query_one(ASK)
        latency = time.perf_counter() - start
        found = standing(row)
        return Health(
            "healthy",
            role="primary" if found.writable else "secondary",
            latency=latency,
            version=found.version,
            pool=self._pool.stats(),
            facts={**found.facts, "encrypted": self.encrypted},
        )

    # ---- beyond single statements -----------------------------------------------------------------------------------

    async def execute_stored_procedure(
        self, name: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> ProcedureResult:
        """Run a stored procedure: ``execute_stored_procedure("usp_GetCases", [42])``.

        Never tried again where it failed: what a procedure has done, nobody can tell from outside.

        Args:
            name: ``procedure`` or ``schema.procedure``; a name, quoted part by part.
            parameters: by position, or by name (``{"case_id": 42}``, with or without ``@``). What `output` made
                among them is an output parameter: its value is in the result.

        Returns:
            All of its result sets, its output parameters and its return value.

        Raises:
            QueryRejected: there is no such procedure (error 2812), or it refuses its parameters.
            ConfigurationError: a name or an output's type is not one.
        """
        from datavern.engines.azuresql.procedures import Call  # noqa: PLC0415  (when the first is called)

        call = Call(self.name, name, parameters)
        does = self._effect_of(call.sql)
        _, answer = await self._send(call.sql, self._values(call.sql, call.values), does)
        return call.result(answer)

    @staticmethod
    def output(type: str, value: Any = None) -> Output:  # noqa: A002  (what it is called in T-SQL)
        """An output parameter of a stored procedure: ``{"total": provider.output("int")}``.

        Args:
            type: its type in T-SQL: ``int``, ``nvarchar(50)``, ``decimal(10, 2)``.
            value: what goes in; NULL when None.

        Raises:
            ConfigurationError: that is no type.
        """
        from datavern.engines.azuresql.procedures import Output  # noqa: PLC0415  (when the first is called)

        return Output(type, value)

    async def bulk_insert(self, table: str, columns: Sequence[str], rows: Rows, **options: Unpack[BulkOptions]) -> int:
        """Insert rows in bulk; how many. All of them are kept, or none.

        With python-tds as a bulk load (INSERT BULK), where the table's columns are of types that it takes and the
        values are of their columns' types; else in as few INSERT statements as T-SQL takes. Both mean the same: a NULL
        stays one, constraints are checked, triggers fire.

        Args:
            table: ``schema.table`` or ``table``; names are quoted.
            columns: which columns the rows' values are for, in their order; the others get their defaults.
            rows: an iterable or async iterable of tuples or lists. It is read as it is sent.
            options: ``batch_size``: rows that are held and sent at a time (a bulk load: 5000, or 4 MiB of text and
                bytes). Of a bulk load alone: ``triggers=False``: fire none; ``constraints=False``: check no CHECK and
                no foreign key, which the server then trusts no more; both take ALTER on the table;
                ``lock_table=True``: one lock on all of it.

        Raises:
            QueryRejected: a row has too few or too many values, or one that T-SQL does not have. The message says
                which row (the first is 1), and never the value.
            ConstraintViolated: a row breaks a constraint of the table.
            ConfigurationError: `columns` or `rows` is not what it should be, or an option asks for a bulk load where
                there is none.
        """
        from datavern.engines.azuresql.bulk import bulk_insert  # noqa: PLC0415  (when the first is made)

        async with AzureSQLTransaction(self, None, read_only=False) as tx:
            return await bulk_insert(tx, table, columns, rows, **options)

    def coalesced(
        self, table: str, *, key: str, columns: Sequence[str] | None = None, batch_size: int = 100
    ) -> CoalescedRead:
        """Hot reads by key: those of one turn of the loop go in one round trip. ``row = await read(7)``.

        Each call gives what ``query_one('SELECT TOP (1) columns FROM table WHERE key = @P1', [key])`` gives.

        Args:
            table: a table or view, ``schema.table`` or ``table``; names are quoted.
            key: the column that is compared with the key.
            columns: which to read, the key among them; all of them when None.
            batch_size: keys in one request: 1000 at the most.

        Raises:
            ConfigurationError: a name is empty, or the key is not among the columns.
        """
        check_read(table, key, columns, batch_size)
        source = AzureSQLSource(self, table, key, columns)
        return CoalescedRead(source, name=self.name, pool=self.settings.pool, batch_size=min(batch_size, MOST))

    # ---- transactions -----------------------------------------------------------------------------------------------

    def transaction(self, *, isolation: Isolation | None = None, read_only: bool = False) -> AzureSQLTransaction:
        """Begin a transaction: commits when its block ends, rolls back when an exception leaves it.

        Args:
            isolation: READ COMMITTED when None, which sees what was committed when a statement began, as Azure SQL's
                databases are set. "repeatable read" of a transaction that only reads is SNAPSHOT.
            read_only: refuse every statement that may write. T-SQL has no such transactions, so it is told from the
                statements' text, and the transaction ends with a rollback.

        Raises:
            ConfigurationError: no such level.
            OutcomeUnknown: on leaving: the commit was sent and no answer came.
        """
        return AzureSQLTransaction(self, level(isolation, read_only=read_only), read_only=read_only)

    @overload
    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        attempts: int = 5,
        idempotency_key: None = None,
    ) -> T: ...
    @overload
    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        attempts: int = 5,
        idempotency_key: str,
    ) -> T | None: ...
    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        attempts: int = 5,
        idempotency_key: str | None = None,
    ) -> T | None:
        """Run ``work(tx)`` in a transaction, again from the start while an error says that it may be (`retry`).

        A deadlock (1205) repeats the whole of it; where the service is busy (40501), it gets its ten seconds first.

        Args:
            work: may be called several times; what it does outside of the transaction is done as often.
            isolation: as `transaction`.
            read_only: as `transaction`.
            attempts: transactions to begin, at the most.
            idempotency_key: names what is done, for seven days: it is done once, however often it is asked for. With
                one, a commit without an answer is looked into after a reconnect, and begun again where it did not
                happen.

        Returns:
            What `work` gave; None where an earlier call with the key has done it.

        Raises:
            OutcomeUnknown: a commit without an answer, and no key, or no answer to what became of it either.
            ConfigurationError: the key may not be one, or is given for what only reads.
        """

        async def rested(tx: Any) -> T:
            failure: ProviderError
            try:
                return await work(tx)
            except ProviderError as error:
                if error.code != str(THROTTLED):
                    raise
                failure = error
            await asyncio.sleep(rest(failure))
            raise failure

        return await self._run_in_transaction(
            rested,
            lambda: self.transaction(isolation=isolation, read_only=read_only),
            read_only=read_only,
            attempts=attempts,
            idempotency_key=idempotency_key,
        )

    @overload
    def sqlalchemy_engine(self, *, background: None = None, **options: Any) -> AsyncEngine: ...

    @overload
    def sqlalchemy_engine(self, *, background: Background[Any], **options: Any) -> Engine: ...

    def sqlalchemy_engine(self, *, background: Background[Any] | None = None, **options: Any) -> AsyncEngine | Engine:
        """SQLAlchemy's async engine on this provider's pool, with its failover of connections, TLS and sealed columns.

        Args:
            background: where this provider is open; then it is an engine for code without asyncio, and any thread.
            options: as `create_async_engine` takes them (``echo=True``), but for those of a pool.

        Raises:
            ConfigurationError: an option that is the provider's to decide; greenlet is not installed.
        """
        from datavern.engines.alchemy.engine import make_engine  # noqa: PLC0415  (loads SQLAlchemy's asyncio)
        from datavern.engines.azuresql.alchemy import Dialect, WaitingDialect  # noqa: PLC0415

        return make_engine(self, (Dialect, WaitingDialect), options, background)
