"""PostgreSQL, on asyncpg's connections and Datavern's own pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from datavern.config import TLS, Pool, Secret
from datavern.connectors.coalescing import CoalescedRead, check_read
from datavern.connectors.pool import Pool as ConnectionPool
from datavern.contracts.capabilities import Capabilities, Isolation
from datavern.contracts.values import Health, Location
from datavern.engines.ages import RelationalAges
from datavern.engines.mapped import Mapped
from datavern.engines.people import RelationalPeople
from datavern.engines.pooling import PooledProvider
from datavern.engines.postgresql.columns import PostgreSQLColumns
from datavern.engines.postgresql.connection import PostgreSQLConnector
from datavern.engines.postgresql.copying import Rows, copy_in
from datavern.engines.postgresql.fused import Fusing
from datavern.engines.postgresql.guarded import PostgreSQLGuarded
from datavern.engines.postgresql.health import PostgreSQLRoles
from datavern.engines.postgresql.ledger import PostgreSQLLedger
from datavern.engines.postgresql.notifications import NOTIFY, Listening, notify
from datavern.engines.postgresql.point_reads import PostgreSQLSource
from datavern.engines.postgresql.replicas import PostgreSQLReplicas
from datavern.engines.postgresql.row_security import TenantTransaction, enable
from datavern.engines.postgresql.samples import PostgreSQLSamples
from datavern.engines.postgresql.search import PostgreSQLSearches
from datavern.engines.postgresql.session import PostgreSQLStatements
from datavern.engines.postgresql.settings import PostgreSQLSettings, parse_url
from datavern.engines.postgresql.statements import Effect, words
from datavern.engines.postgresql.subjects import PostgreSQLSubjects
from datavern.engines.postgresql.transaction import (
    PostgreSQLTransaction,
    begin_statement,
)
from datavern.engines.postgresql.whereabouts import PostgreSQLWhereabouts

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from datavern.background import Background
    from datavern.contracts.capabilities import Services

__all__ = ["PostgreSQLProvider"]

T = TypeVar("T")

_HIDDEN = "SELECT pg_catalog.row_security_active($1::text::regclass)"
_HEALTH = """
SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
       pg_catalog.current_setting('server_version') AS version
"""


class PostgreSQLProvider(PostgreSQLSearches, PostgreSQLStatements, PooledProvider):
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
        group_commit: audited inserts of single rows that come at the same time may be committed together
            (docs/audited-writes.md); False: each by itself.
        keyring: URL of a key ring, for use without a manager.
        region_probe: how the server says where it is: a statement whose one value is a region identifier, or a
            callable, sync or async, that gives one. Asked on every new connection, and compared with the settings.

    Raises:
        ConfigurationError: a setting is wrong or contradicts another. No I/O happens here.
    """

    engine = "postgresql"
    kind = PostgreSQLSettings
    _parse_url = staticmethod(parse_url)

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
        group_commit: bool = True,
        keyring: str | None = None,
        region_probe: str | Callable[[], Any] | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "name": name, "host": host, "port": port, "database": database, "username": username, "password": password,
            "tls": tls, "pool": Pool() if pool is None else pool, "location": location, "region": region,
            "compliance": compliance, "connect_timeout": connect_timeout, "statement_cache": statement_cache,
            "application_name": application_name, "pooler": pooler, "group_commit": group_commit, "keyring": keyring,
            "region_probe": region_probe,
        }  # fmt: skip
        self._set_up(values, path=name if isinstance(name, str) else "name")

    def _set_up(self, values: dict[str, Any], *, path: str) -> None:
        self._begin_with(values, path=path)
        self._effects: dict[str, Effect] = {}
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

    # ---- what it is -------------------------------------------------------------------------------------------------

    @property
    def pooled(self) -> bool:
        """Whether a pooler is between that gives each transaction another session: known once it is open."""
        return self._pooled

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
        await asyncio.gather(*(listening.end("the provider was closed") for listening in list(self._listening)))
        await super().close()

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        self._services = services
        self._mapped = Mapped.of(self, services, subjects=self._subjects, read=words)
        self._effects.clear()

    async def _ask(self) -> Health:
        self._effects.setdefault(_HEALTH, Effect.READS)
        await self.query_value("SELECT 1")  # the connection is made and warm: the next answer's time is its own
        start = time.perf_counter()
        row: Any = await self.query_one(_HEALTH)
        latency = time.perf_counter() - start
        return Health(
            "healthy",
            role="secondary" if row["in_recovery"] or row["read_only"] else "primary",
            latency=latency,
            version=f"PostgreSQL {row['version']}",
            pool=self._pool.stats(),
            facts={"in_recovery": row["in_recovery"], "encrypted": self.encrypted, "pooler": self._pooled},
        )

    # ---- beyond single statements -----------------------------------------------------------------------------------

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
        return await self._run_in_transaction(
            work,
            lambda: self.transaction(isolation=isolation, read_only=read_only, tenant=tenant),
            read_only=read_only,
            attempts=attempts,
            idempotency_key=idempotency_key,
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
