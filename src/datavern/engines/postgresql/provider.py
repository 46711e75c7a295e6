"""PostgreSQL, on asyncpg's connections and Datavern's own pool."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, overload

from datavern.config import TLS, Pool, Secret, checked
from datavern.connectors.coalescing import CoalescedRead, check_read
from datavern.connectors.pool import Pool as ConnectionPool
from datavern.connectors.pool import Slot
from datavern.connectors.retry import Budget, run_in_transaction
from datavern.contracts import services
from datavern.contracts.capabilities import Capabilities, Isolation, Provider
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    DatavernError,
    PoolTimeout,
    QueryRejected,
)
from datavern.contracts.fused import checked_key
from datavern.contracts.regions import locate
from datavern.contracts.values import Health, Location, Parameters, PoolStats, Row
from datavern.engines.ages import RelationalAges
from datavern.engines.idempotency import KEPT
from datavern.engines.mapped import Mapped
from datavern.engines.people import RelationalPeople
from datavern.engines.postgresql.columns import PostgreSQLColumns
from datavern.engines.postgresql.connection import PostgreSQLConnector
from datavern.engines.postgresql.copying import Rows, copy_in
from datavern.engines.postgresql.errors import Fault, fault
from datavern.engines.postgresql.fused import Fusing, PostgreSQLGuarded
from datavern.engines.postgresql.health import PostgreSQLRoles
from datavern.engines.postgresql.ledger import PostgreSQLLedger
from datavern.engines.postgresql.many import many
from datavern.engines.postgresql.notifications import NOTIFY, Listening, notify
from datavern.engines.postgresql.point_reads import PostgreSQLSource
from datavern.engines.postgresql.pooled import session_bound
from datavern.engines.postgresql.replicas import PostgreSQLReplicas
from datavern.engines.postgresql.row_security import TenantTransaction, enable
from datavern.engines.postgresql.samples import PostgreSQLSamples
from datavern.engines.postgresql.search import PostgreSQLSearches
from datavern.engines.postgresql.settings import PostgreSQLSettings, merged
from datavern.engines.postgresql.statements import Effect, effect, ends_transaction, words
from datavern.engines.postgresql.subjects import PostgreSQLSubjects
from datavern.engines.postgresql.transaction import (
    PostgreSQLTransaction,
    RowStream,
    affected,
    begin_statement,
)
from datavern.engines.postgresql.whereabouts import PostgreSQLWhereabouts

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from datavern.background import Background
    from datavern.contracts.capabilities import Services
    from datavern.contracts.fused import Entry

__all__ = ["PostgreSQLProvider"]

T = TypeVar("T")

_KNOWN_TEXTS = 4096
_LONGEST_KNOWN_TEXT = 16_384
_HEALTH_DEADLINE = 5.0
_HIDDEN = "SELECT pg_catalog.row_security_active($1::text::regclass)"
_HEALTH = """
SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
       pg_catalog.current_setting('server_version') AS version
"""


class PostgreSQLProvider(PostgreSQLSearches):
    """A PostgreSQL database: see `datavern.contracts.capabilities.Provider` and `Session`.

    Args:
        name: unique within a manager; in messages and in the server's own views.
        host: name or address of the server, or the folder of its Unix socket (an absolute path).
        port: TCP port.
        database: its name.
        username: the operating system's user when None.
        password: the text, `env()`, or a callable, sync or async, that is asked anew for each connection (a token).
        tls: full verification when None; no TLS where the host is this machine.
        pool: how many connections, and how long they live.
        location: where the data is; follows from `region` when that is given.
        region: a region identifier (``azure:norwayeast``).
        compliance: "gdpr", "nsm": the rule sets to enforce.
        connect_timeout: seconds that making one connection may take.
        statement_cache: prepared statements that each connection keeps; 0 for none.
        application_name: what the server's own views call these connections.
        pooler: "transaction" or "session", where a pooler such as PgBouncer is between; None to find out, and to take
            what is found for the former (docs/postgresql.md).
        keyring: URL of a key ring, for use without a manager.
        region_probe: how the server says where it is: a statement whose one value is a region identifier, or a
            callable, sync or async, that gives one. Asked on every new connection, and compared with the settings.

    Raises:
        ConfigurationError: a setting is wrong or contradicts another. No I/O happens here.
    """

    engine = "postgresql"

    def __init__(
        self,
        *,
        name: str = "postgresql",
        host: str = "127.0.0.1",
        port: int = 5432,
        database: str,
        username: str | None = None,
        password: str | Secret | Callable[[], Any] | None = None,
        tls: TLS | None = None,
        pool: Pool | None = None,
        location: Location | str | None = None,
        region: str | None = None,
        compliance: Iterable[str] = (),
        connect_timeout: float = 10.0,
        statement_cache: int = 200,
        application_name: str = "datavern",
        pooler: Literal["transaction", "session"] | None = None,
        keyring: str | None = None,
        region_probe: str | Callable[[], Any] | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "name": name, "host": host, "port": port, "database": database, "username": username, "password": password,
            "tls": tls, "pool": Pool() if pool is None else pool, "location": location, "region": region,
            "compliance": compliance, "connect_timeout": connect_timeout, "statement_cache": statement_cache,
            "application_name": application_name, "pooler": pooler, "keyring": keyring,
            "region_probe": region_probe,
        }  # fmt: skip
        self._set_up(values, path=name if isinstance(name, str) else "name")

    def _set_up(self, values: dict[str, Any], *, path: str) -> None:
        password = values.get("password")
        if password is not None and not isinstance(password, Secret):
            values["password"] = Secret(password)
        if "compliance" in values:
            values["compliance"] = frozenset(values["compliance"])
        settings = checked(PostgreSQLSettings, values, path=path)
        self.settings = settings
        self.name = settings.name
        self.region = settings.region
        self.location = _location(settings, path)
        self.compliance: frozenset[str] = frozenset(settings.compliance)
        self.face: Provider = self
        if "nsm" in self.compliance and not self.encrypted:
            raise ConfigurationError(
                f"{path}.tls: compliance nsm refuses an unencrypted or unverified connection beyond this machine "
                "(NSM 2.7.4): use TLS(verify='full')"
            )
        self._services: Services | None = None
        self._connecting = asyncio.Lock()
        self._budget = Budget(reserve=max(100.0, 10.0 * settings.pool.max))
        self._pool: Any = _NotOpen(self.name)
        self._effects: dict[str, Effect] = {}
        self._mapped: Mapped | None = None
        self._pooled = self.settings.pooler == "transaction"
        self._views_looked_at = 0.0  # until when the views over tables with policies are known
        self._audited: dict[str, Effect] = {}  # of texts that pass because their writes are audited
        self._listening: set[Listening] = set()
        self._subjects = PostgreSQLSubjects(self)
        self._ledger = PostgreSQLLedger(self)
        self._fusing = Fusing(self)
        self._search_texts = {}
        self._capabilities = Capabilities(
            session=self,
            transactions=self,
            subjects=self._subjects,
            ages=RelationalAges(self, self._subjects),
            columns=PostgreSQLColumns(self, self._subjects),
            ledger=self._ledger,
            guarded=PostgreSQLGuarded(self),
            point_reads=self,
            samples=PostgreSQLSamples(self),
            people=RelationalPeople(self, self._subjects, hidden=_HIDDEN),
            roles=PostgreSQLRoles(self),
            replicas=PostgreSQLReplicas(self),
            whereabouts=PostgreSQLWhereabouts(self),
        )

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """A provider from ``postgresql://user:password@host:port/database?sslmode=…``, and settings beside it.

        Raises:
            ConfigurationError: as the constructor does; also where both say something different.
        """
        name = settings.setdefault("name", "postgresql")
        return cls.from_settings(name, {"url": url, **{k: v for k, v in settings.items() if k != "name"}}, path=name)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any], *, path: str | None = None) -> Self:
        """A provider as a configuration file describes it, ``url`` among the settings or not.

        Raises:
            ConfigurationError: an unknown key, a wrong type, a contradiction: each with its path.
        """
        path = path or f"databases.{name}"
        given = {key: value for key, value in settings.items() if key not in {"url", "provider"}}
        url = settings.get("url")
        if isinstance(url, Secret):
            url = url.reveal()
        values = merged(url, given, path=path)
        if "database" not in values:
            raise ConfigurationError(f"{path}.database: missing; expected its name, or a url that ends in it")
        provider = cls.__new__(cls)
        provider._set_up({"name": name, **values}, path=path)  # noqa: SLF001  (the other half of the constructor)
        return provider

    # ---- what it is -------------------------------------------------------------------------------------------------

    @property
    def provider(self) -> PostgreSQLProvider:
        """Itself: a provider is a session."""
        return self

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted and verified, or cannot leave this machine."""
        return self.settings.local or self.settings.effective_tls.verify == "full"

    @property
    def pooled(self) -> bool:
        """Whether a pooler is between that gives each transaction another session: known once it is open."""
        return self._pooled

    def stats(self) -> PoolStats:
        """The pool, at this moment."""
        return self._pool.stats()  # type: ignore[no-any-return]  # PoolStats

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the pool and make the first connection. Idempotent.

        Raises:
            ConnectionFailed: says what to do about it.
            ConfigurationError: a certificate file or the password's source is not there.
            ResidencyViolation: the server says (`region_probe`) that it is further away than the settings do.
        """
        async with self._connecting:
            if not self._pool.closed:
                return
            connector = PostgreSQLConnector(self.settings)
            pool = ConnectionPool(connector, self.settings.pool, name=self.name, alone=self.face is self)
            pool.start()
            try:
                pool.give(await pool.acquire(within=self.settings.connect_timeout + 1.0, outage=0.0))
            except BaseException:
                await pool.close()
                raise
            if connector.pooled != self._pooled:
                self._pooled = connector.pooled
                self._effects.clear()  # what may be sent is another question now
                self._audited.clear()
            self._pool = pool

    async def close(self) -> None:
        """Close every connection. Idempotent; never waits for a server that does not answer."""
        pool = self._pool  # it stays in place until it is closed: borrowers give back to it meanwhile
        try:
            await asyncio.gather(*(listening.end("the provider was closed") for listening in list(self._listening)))
            await pool.close()
        finally:
            if self._pool is pool:
                self._pool = _NotOpen(self.name)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        self._services = services
        self._mapped = Mapped.of(self, services, subjects=self._subjects, read=words)
        self._effects.clear()

    def suspend(self) -> None:
        """Give no statement a connection until `resume`: calls wait, for `pool.acquire` at the most. Idempotent.

        What has a connection goes on: an open transaction, a stream. With `drain` it is how a server is changed under a
        program that runs on.

        Raises:
            ConnectionFailed: the provider is not open.
        """
        self._open_pool().suspend()

    def resume(self) -> None:
        """Go on after `suspend`. Idempotent."""
        self._open_pool().resume()

    async def drain(self, within: float = 30.0) -> bool:
        """Replace every connection that is open now: the idle ones at once, those in use as they come back.

        Args:
            within: seconds to wait for those in use.

        Returns:
            Whether all of them are gone. False: some are in use still; they go when they come back.

        Raises:
            ConnectionFailed: the provider is not open.
        """
        return bool(await self._open_pool().drain(within))

    async def warm_up(self, connections: int | None = None) -> int:
        """Make connections before they are needed; how many are open then.

        Args:
            connections: how many; None: `pool.max`, which is the most.

        Raises:
            ConnectionFailed: one could not be made, or the provider is not open.
        """
        most = self.settings.pool.max
        return int(await self._open_pool().warm_up(most if connections is None else connections))

    def _open_pool(self) -> ConnectionPool[asyncpg.Connection]:
        pool = self._pool
        if isinstance(pool, _NotOpen):
            pool.take()
        return pool  # type: ignore[no-any-return]  # see `connect`

    async def health(self) -> Health:
        """Ask the server for its role and version; the pool's state is in the answer."""
        if isinstance(self._pool, _NotOpen):
            return Health("unhealthy", detail="not open")
        try:
            self._effects.setdefault(_HEALTH, Effect.READS)
            async with asyncio.timeout(_HEALTH_DEADLINE):
                self._pool.give(await self._pool.acquire(outage=0.0))  # a server that is away is told at once
                await self.query_value("SELECT 1")  # the connection is made and warm: the next answer's time is its own
                start = time.perf_counter()
                row = await self.query_one(_HEALTH)
                latency = time.perf_counter() - start
        except (DatavernError, TimeoutError) as error:
            return self._unwell(error)
        assert row is not None  # noqa: S101  (for the type checker: a SELECT without FROM has one row)
        return Health(
            "healthy",
            role="secondary" if row["in_recovery"] or row["read_only"] else "primary",
            latency=latency,
            version=f"PostgreSQL {row['version']}",
            pool=self._pool.stats(),
            facts={"in_recovery": row["in_recovery"], "encrypted": self.encrypted, "pooler": self._pooled},
        )

    def _unwell(self, error: Exception) -> Health:
        stats, most = self.stats(), self.settings.pool.max
        if isinstance(error, TimeoutError | PoolTimeout) and stats.in_use >= most:
            return Health("degraded", detail=f"all {most} connections are in use (pool.max)", pool=stats)
        detail = str(error) if isinstance(error, DatavernError) else f"no answer within {_HEALTH_DEADLINE:g} s"
        return Health("unhealthy", detail=detail, pool=stats)

    # ---- statements -------------------------------------------------------------------------------------------------
    # Each takes a connection and gives it back inline: no task, no shield, no context manager (a microsecond each).

    async def query(self, sql: str, parameters: Parameters = ()) -> Sequence[Row]:
        """All rows of a statement; an empty sequence when there are none."""
        does = self._effects.get(sql)
        if does is None or (type(parameters) is not list and type(parameters) is not tuple):
            does = self._checked(sql, parameters)
        pool = self._pool
        while True:
            slot = pool.take() or await pool.acquire()
            try:
                rows = await slot.connection.fetch(sql, *parameters)
            except BaseException as error:  # noqa: BLE001  (translated, and raised by _end)
                found = self._found(slot, error, does, parameters)
            else:
                if does is Effect.TOUCHES:
                    self._touched(slot)
                pool.give(slot)
                return rows  # type: ignore[no-any-return]  # a list of records
            await self._end(slot, sql, found)

    async def query_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        does = self._effects.get(sql)
        if does is None or (type(parameters) is not list and type(parameters) is not tuple):
            does = self._checked(sql, parameters)
        pool = self._pool
        while True:
            slot = pool.take() or await pool.acquire()
            try:
                row = await slot.connection.fetchrow(sql, *parameters)
            except BaseException as error:  # noqa: BLE001  (translated, and raised by _end)
                found = self._found(slot, error, does, parameters)
            else:
                if does is Effect.TOUCHES:
                    self._touched(slot)
                pool.give(slot)
                return row  # type: ignore[no-any-return]  # a record
            await self._end(slot, sql, found)

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        row: Any = await self.query_one(sql, parameters)
        return row[0] if row else None

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement; how many rows it inserted, updated or deleted (0 for anything else).

        Without parameters the text may hold several statements: all or none of them take effect, and the count is the
        last one's.

        With `audit` or `idempotency_key` (see `datavern.contracts.capabilities.Session`) one INSERT, UPDATE, DELETE,
        MERGE or SELECT goes together with them as one statement; everything else is a transaction with them, so what
        cannot run in one (VACUUM, CREATE INDEX CONCURRENTLY) is refused.
        """
        if audit is not None or idempotency_key is not None:
            return await self._fusing.execute(sql, parameters, audit, idempotency_key)
        does = self._effects.get(sql)
        if does is None or (type(parameters) is not list and type(parameters) is not tuple):
            does = self._checked(sql, parameters)
        pool = self._pool
        while True:
            slot = pool.take() or await pool.acquire()
            try:
                status = await slot.connection.execute(sql, *parameters)
            except BaseException as error:  # noqa: BLE001  (translated, and raised by _end)
                found = self._found(slot, error, does, parameters)
            else:
                if does is Effect.TOUCHES:
                    self._touched(slot)
                pool.give(slot)
                return affected(status)
            await self._end(slot, sql, found)

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """Run a statement once for each set of parameters, all or none of them; how many sets were run."""
        does = self._effects.get(sql)
        if does is None or not isinstance(parameters, list):
            self._check_parameters(parameters)
            does = self._checked(sql, ())
        pool = self._pool
        while True:
            slot = pool.take() or await pool.acquire()
            try:
                await many(slot.connection, sql, parameters)
            except BaseException as error:  # noqa: BLE001  (translated, and raised by _end)
                found = self._found(slot, error, does, parameters, many=True)
            else:
                if does is Effect.TOUCHES:
                    self._touched(slot)
                pool.give(slot)
                return len(parameters)
            await self._end(slot, sql, found)

    async def copy_in(self, table: str, columns: Sequence[str], rows: Rows) -> int:
        """Copy rows into a table, as fast as the server takes them; how many. All of them are kept, or none.

        Cancelled, or left by an exception of `rows` itself, nothing is kept either. Not retried.

        Args:
            table: ``schema.table`` or ``table``; names are quoted.
            columns: which columns the rows' values are for, in their order; the others get their defaults.
            rows: an iterable or async iterable of tuples, lists or rows of a query. It is read as it is sent: neither
                side ever holds more than a small part of it.

        Raises:
            QueryRejected: a row has too few or too many values, or one that its column does not take. The message says
                which row (the first is 1), which column and which type, and never the value.
            ConstraintViolated: a row breaks a constraint of the table.
            ConfigurationError: `columns` or `rows` is not what it should be.
        """
        async with PostgreSQLTransaction(self, "BEGIN", read_only=False) as tx:
            return await copy_in(tx, table, columns, rows)

    async def purge_idempotency(self, older_than: dt.timedelta = KEPT) -> int:
        """Forget the idempotency keys of changes that are older; how many. A change could be made again after that.

        Raises:
            ConfigurationError: no length of time.
        """
        return await self._fusing.purge(older_than)

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> RowStream:
        """Rows in constant memory, `batch_size` of them fetched at a time, in a transaction of their own."""
        transaction = PostgreSQLTransaction(self, "BEGIN", read_only=False)
        return RowStream(transaction, sql, parameters, batch_size=batch_size, own=True)

    def coalesced(
        self, table: str, *, key: str, columns: Sequence[str] | None = None, batch_size: int = 100
    ) -> CoalescedRead:
        """Hot reads by key: those of one turn of the loop go as one statement. ``row = await read(7)``.

        Each call gives what ``query_one('SELECT columns FROM table WHERE key = $1', [key])`` gives. Where keys cannot
        be sent as an array (a column that is one itself), each goes in that statement.

        Args:
            table: a table or view, ``schema.table`` or ``table``; names are quoted.
            key: the column that is compared with the key.
            columns: which to read, the key among them; all of them when None.
            batch_size: keys in one statement, at the most.

        Raises:
            ConfigurationError: a name is empty, or the key is not among the columns.
        """
        check_read(table, key, columns, batch_size)
        source = PostgreSQLSource(self, table, key, columns, subjects=PostgreSQLSubjects(self))
        return CoalescedRead(source, name=self.name, pool=self.settings.pool, batch_size=batch_size)

    # ---- transactions -----------------------------------------------------------------------------------------------

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False, tenant: str | None = None
    ) -> PostgreSQLTransaction:
        """Begin a transaction: commits when its block ends, rolls back when an exception leaves it.

        Args:
            isolation: the server's default when None; "snapshot" and "repeatable read" are the same here.
            read_only: let the server refuse every change.
            tenant: whose rows the transaction sees and writes, in tables under `enable_row_level_security`. For this
                transaction alone.

        Raises:
            ConfigurationError: the tenant is empty; on entering: policies do not bind the user (a superuser, a role
                with BYPASSRLS, or the owner of a table that is not under FORCE), a table has another permissive policy,
                or the user may read a view that looks with the rights of somebody whom they do not bind.
            OutcomeUnknown: on leaving: the commit was sent and no answer came.
        """
        begin = begin_statement(isolation, read_only=read_only)
        if tenant is not None:
            return TenantTransaction(self, begin, read_only=read_only, tenant=tenant)
        return PostgreSQLTransaction(self, begin, read_only=read_only)

    @overload
    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        tenant: str | None = None,
        attempts: int = 5,
        idempotency_key: None = None,
    ) -> T: ...
    @overload
    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        tenant: str | None = None,
        attempts: int = 5,
        idempotency_key: str,
    ) -> T | None: ...
    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        tenant: str | None = None,
        attempts: int = 5,
        idempotency_key: str | None = None,
    ) -> T | None:
        """Run ``work(tx)`` in a transaction, again from the start while an error says that it may be (`retry`).

        Args:
            work: may be called several times; what it does outside of the transaction is done as often.
            isolation: as `transaction`.
            read_only: as `transaction`.
            tenant: as `transaction`.
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

        @asynccontextmanager
        async def keyed() -> AsyncIterator[PostgreSQLTransaction]:
            await self._fusing.prepare_keys()
            async with self.transaction(isolation=isolation, tenant=tenant) as tx:
                yield tx

        def begin() -> PostgreSQLTransaction:
            return self.transaction(isolation=isolation, read_only=read_only, tenant=tenant)

        if idempotency_key is not None:
            checked_key(idempotency_key)
            if read_only:
                raise ConfigurationError("idempotency_key: what only reads needs none, and cannot hold one")
        return await run_in_transaction(
            begin if idempotency_key is None else keyed,
            work,
            attempts=attempts,
            idempotency_key=idempotency_key,
            budget=self._budget,
            patience=self.settings.pool.acquire,
        )

    async def enable_row_level_security(self, table: str, column: str = "tenant_id") -> list[str]:
        """Let every role see and write only the rows of its transaction's tenant; what was run. Idempotent.

        Enabled and forced, so that the table's owner is bound too; superusers and roles with BYPASSRLS are not, and
        ``transaction(tenant=…)`` refuses them. Without a tenant no row is seen.

        Args:
            table: ``schema.table`` or ``table``. Partitions that it has by now, and tables that inherit from it, come
                under the policy too: one that is named in a statement goes by its own. Run it again after another.
            column: whose row it is: text, varchar, uuid, smallint, integer or bigint. Best indexed.

        Raises:
            ConfigurationError: there is no such table or column, its type is another, or the table has a policy that
                would let other rows through.
            QueryRejected: the user does not own the table.
        """
        return await enable(self, table, column)

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
        from datavern.engines.postgresql.alchemy import Dialect, WaitingDialect  # noqa: PLC0415

        return make_engine(self, (Dialect, WaitingDialect), options, background)

    # ---- notifications ----------------------------------------------------------------------------------------------

    def listen(self, channel: str, *more: str, most: int = 10_000) -> Listening:
        """Messages of a channel, or of several: ``async with provider.listen("x") as notes: async for note in notes``.

        It has a connection of its own, beside the pool, from when the block is entered. Where that breaks it connects
        again, with growing pauses, for as long as the block lasts, and then gives an item whose `missed` says that
        messages may have been missed; so it does where more than `most` waited, and the oldest were dropped. Such an
        item has no payload: asking for it raises.

        Args:
            channel: its name, to the letter: upper case, quotes and everything else stand for themselves.
            more: further channels.
            most: messages that may wait to be taken.

        Raises:
            ConfigurationError: a name is empty, has more than 63 bytes, or holds a NUL.
            ConnectionFailed: on entering: no connection could be made. Later ones are made without end.
        """
        return Listening(self, (channel, *more), most=most)

    async def notify(self, channel: str, payload: str = "") -> None:
        """Send a message to whoever listens to that channel of this database. In a transaction: ``tx.notify``.

        Raises:
            QueryRejected: the payload has more than 7999 bytes.
            ConfigurationError: as `listen`.
            OutcomeUnknown: it may or may not have been sent.
        """
        self._effects.setdefault(NOTIFY, Effect.WRITES)
        await notify(self, self.name, channel, payload)

    # ---- what belongs to the features above -------------------------------------------------------------------------

    async def store_personal_data(self, data: Mapping[str, Any], consent: Any) -> Any:
        """Seal `data` and keep it in the built-in ``personal_data`` table, with consent and audit.

        Raises:
            ConfigurationError: the provider belongs to no manager and has no keyring.
        """
        if self._services is None:
            self._services = await services.serve_alone(self, self.settings.keyring, "store_personal_data")
        return await self._services.store_personal_data(self, data, consent)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _effect_of(self, sql: str, *, audited: bool = False) -> Effect:
        does = self._effects.get(sql)
        return self._checked(sql, (), audited=audited) if does is None else does

    def _checked(self, sql: str, parameters: Parameters, *, audited: bool = False) -> Effect:
        """What a text does, once it is sure that it may be sent. Raises `QueryRejected`, or `PrivacyError`."""
        self._check_parameters(parameters)
        if not isinstance(sql, str):
            raise QueryRejected(f"{self.name}: a statement is a str, not {type(sql).__name__}", provider=self.name)
        mapped = self._mapped
        passes = mapped is not None and (audited or self._subjects.owns(sql))
        if passes and (does := self._audited.get(sql)) is not None:
            return does
        if "\0" in sql:
            raise QueryRejected(
                f"{self.name}: the statement holds a NUL character, at character {sql.index(chr(0)) + 1}",
                provider=self.name,
                position=sql.index("\0") + 1,
            )
        if not sql.isascii() and _surrogate(sql):
            raise QueryRejected(
                f"{self.name}: the statement holds half a surrogate pair, which is not valid Unicode",
                provider=self.name,
            )
        if control := ends_transaction(sql):
            raise QueryRejected(
                f"{self.name}: {control} would begin or end a transaction below us: use transaction() and savepoint()",
                provider=self.name,
            )
        if mapped is not None and not passes:
            mapped.check(sql)
        self._check_speech(words(sql))
        if self._pooled and (bound := session_bound(sql)):
            raise QueryRejected(f"{self.name}: behind a pooler in transaction mode, {bound}", provider=self.name)
        does = effect(sql)
        known = self._audited if passes else self._effects
        if len(sql) <= _LONGEST_KNOWN_TEXT:
            if len(known) >= _KNOWN_TEXTS:
                known.clear()
            known[sql] = does
        return does

    def _check_speech(self, read: list[tuple[str, str]] | None) -> None:
        """Refuse what the driver has no answer for: a text without a statement, and one that waits for data."""
        problem = ""
        if read is not None:
            said = [text for kind, text in read if kind == "word"]
            if not read or all(text == ";" for _, text in read):
                problem = "the text holds no statement"
            elif said[:1] == ["copy"] and ({"stdin", "stdout"} & set(said)):
                problem = "COPY from STDIN or to STDOUT has no data or nobody to take it here: use copy_in, or stream"
        if problem:
            raise QueryRejected(f"{self.name}: {problem}", provider=self.name)

    def _check_parameters(self, parameters: Parameters) -> None:
        if isinstance(parameters, Mapping | str | bytes) or not isinstance(parameters, Sequence):
            raise QueryRejected(
                f"{self.name}: PostgreSQL takes parameters by position ($1, $2): expected a list or a tuple, not "
                f"{type(parameters).__name__}",
                provider=self.name,
            )

    def _touched(self, slot: Slot[asyncpg.Connection]) -> None:
        """The session may not be as new any more. A transaction that a statement left open is an error of its own."""
        slot.touched = True
        if slot.connection.is_in_transaction():
            self._pool.give(slot)
            raise QueryRejected(
                f"{self.name}: the statement left a transaction open, and it was rolled back: use transaction()",
                provider=self.name,
            )

    def _found(
        self, slot: Slot[asyncpg.Connection], error: BaseException, does: Effect, parameters: Any, *, many: bool = False
    ) -> Any:
        """What to make of it. A cancellation is itself, and its connection is seen to in the background."""
        if not isinstance(error, Exception):
            self._pool.recover(slot)
            return error
        if does is Effect.TOUCHES or self._pooled:
            slot.touched = True  # a statement that the driver refused once it was parsed keeps the pooler's session
        return fault(error, name=self.name, stage="statement", effect=does, parameters=parameters, many=many)

    async def _end(self, slot: Slot[asyncpg.Connection], sql: str, found: Any) -> None:
        """Part with the connection and raise; returns only where nothing was sent and another connection may do."""
        if not isinstance(found, Fault):
            raise found
        if found.parameter is not None:
            error = await self._explained_and_given(slot, sql, found)
            raise error
        self._part(slot, found)
        if not found.unsent:
            raise found.error

    def _part(self, slot: Slot[asyncpg.Connection], found: Fault) -> None:
        if found.connection == "keep":
            self._pool.give(slot)
        elif found.connection == "renew":
            self._pool.renew(slot)
        else:
            self._pool.discard(slot)

    async def _explained_and_given(self, slot: Slot[asyncpg.Connection], sql: str, found: Fault) -> BaseException:
        try:
            error = await self._explained(slot.connection, sql, found)
        except BaseException:
            self._pool.recover(slot)
            raise
        self._pool.give(slot)
        return error

    async def _explained(self, connection: asyncpg.Connection, sql: str, found: Fault) -> BaseException:
        """The error, with the type that the parameter should have had."""
        assert found.parameter is not None  # noqa: S101  (for the type checker: the callers looked)
        try:
            statement = await connection.prepare(sql)
            wanted = statement.get_parameters()[found.parameter - 1]
            if wanted.kind != "scalar":  # a type with parts, which may have been altered since the driver learnt it
                await connection.reload_schema_state()
        except Exception:  # noqa: BLE001  (the error that there is says enough)
            return found.error
        error = found.error
        message = str(error).replace(
            " is not a value of the type that the statement takes", f" is not a value that fits {wanted.name}"
        )
        error.args = (message, *error.args[1:])
        return error


class _NotOpen:
    """In the place of the pool while there is none."""

    closed = True

    def __init__(self, name: str) -> None:
        self._name = name

    def take(self) -> NoReturn:
        raise ConnectionFailed(f"{self._name} is not open: use it inside `async with`", provider=self._name)

    def stats(self) -> PoolStats:
        return PoolStats()

    async def close(self) -> None:
        pass

    def recover(self, slot: Any) -> None:
        """A borrower that outlived the pool: its connection was aborted with it."""

    give = discard = renew = recover

    severed = False

    def sever(self) -> None:
        pass

    hold = sever


def _location(settings: PostgreSQLSettings, path: str) -> Location:
    """Where the data is: the region is evidence, the label is not."""
    if settings.region is None:
        return settings.location or Location.GLOBAL
    found = locate(settings.region)
    if settings.location is not None and settings.location != found:
        raise ConfigurationError(
            f"{path}.location: is {settings.location}, and the region {settings.region} is in {found}: leave it out"
        )
    return found


def _surrogate(sql: str) -> bool:
    try:
        sql.encode()
    except UnicodeEncodeError:
        return True
    return False
