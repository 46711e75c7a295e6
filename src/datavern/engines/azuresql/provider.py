"""Azure SQL and SQL Server, on Microsoft's driver or python-tds, and Datavern's own pool."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack, overload

from datavern.config import TLS, Pool, Secret, checked
from datavern.connectors.pool import Pool as ConnectionPool
from datavern.connectors.pool import Slot
from datavern.connectors.retry import Budget, backoff, run_in_transaction
from datavern.contracts import services
from datavern.contracts.capabilities import Capabilities, Isolation, Provider
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    DatavernError,
    PoolTimeout,
    ProviderError,
    QueryRejected,
)
from datavern.contracts.fused import checked_key
from datavern.contracts.regions import locate
from datavern.contracts.values import Health, Location, Parameters, PoolStats, Row
from datavern.contracts.whereabouts import refuse_contradiction
from datavern.engines.ages import RelationalAges
from datavern.engines.azuresql.connection import AzureSQLConnection, AzureSQLConnector
from datavern.engines.azuresql.errors import Fault, fault
from datavern.engines.azuresql.fused import AzureSQLGuarded, Fusing
from datavern.engines.azuresql.health import ASK, AzureSQLRoles, standing
from datavern.engines.azuresql.ledger import AzureSQLLedger
from datavern.engines.azuresql.many import AtCommit, many
from datavern.engines.azuresql.numbers import THROTTLED
from datavern.engines.azuresql.samples import AzureSQLSamples
from datavern.engines.azuresql.settings import AzureSQLSettings, merged
from datavern.engines.azuresql.statements import Effect, effect, ends_transaction, mapped_words, places, several
from datavern.engines.azuresql.subjects import AzureSQLSubjects
from datavern.engines.azuresql.transaction import AzureSQLTransaction, RowStream, level
from datavern.engines.azuresql.values import bound, positional
from datavern.engines.azuresql.whereabouts import AzureSQLWhereabouts
from datavern.engines.idempotency import KEPT
from datavern.engines.mapped import Mapped
from datavern.engines.people import RelationalPeople

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Services
    from datavern.contracts.fused import Entry
    from datavern.engines.azuresql.bulk import BulkOptions, Rows
    from datavern.engines.azuresql.procedures import Output, ProcedureResult
    from datavern.engines.azuresql.wire import Answer, Wire

__all__ = ["AzureSQLProvider"]

T = TypeVar("T")

_KNOWN_TEXTS = 4096
_LONGEST_KNOWN_TEXT = 16_384
_MOST_PARAMETERS = 2098  # 2100 of sp_executesql, less the two that it takes itself
_HEALTH_DEADLINE = 5.0
_ATOMIC = "SET XACT_ABORT ON; BEGIN TRANSACTION;\n{}\n;COMMIT TRANSACTION; SET XACT_ABORT OFF"


class AzureSQLProvider:
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
        for key in ("password", "token"):
            given = values.get(key)
            if given is not None and not isinstance(given, Secret):
                values[key] = Secret(given)
        if "compliance" in values:
            values["compliance"] = frozenset(values["compliance"])
        settings = checked(AzureSQLSettings, values, path=path)
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
        self._pool: Any = _NotOpen(self.name)
        self._effects: dict[str, Effect] = {}
        self._mapped: Mapped | None = None
        self._audited: dict[str, Effect] = {}  # of texts that pass because their writes are audited
        self._subjects = AzureSQLSubjects(self)
        self._ledger = AzureSQLLedger(self)
        self._fusing = Fusing(self)
        self._budget = Budget(reserve=max(100.0, 10.0 * settings.pool.max))
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
            reasons={"point_reads": "each read by key is a statement of its own here: use query_one"},
        )

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """A provider from ``mssql://user:password@host:port/database?…``, and settings beside it.

        Raises:
            ConfigurationError: as the constructor does; also where both say something different.
        """
        name = settings.setdefault("name", "azuresql")
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
    def provider(self) -> AzureSQLProvider:
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

    def stats(self) -> PoolStats:
        """The pool, at this moment."""
        return self._pool.stats()  # type: ignore[no-any-return]  # PoolStats

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

    async def close(self) -> None:
        """Close every connection. Idempotent; never waits for a server that does not answer."""
        pool = self._pool  # it stays in place until it is closed: borrowers give back to it meanwhile
        try:
            await pool.close()
        finally:
            if self._pool is pool:
                self._pool = _NotOpen(self.name)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

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

    def _open_pool(self) -> ConnectionPool[AzureSQLConnection]:
        pool = self._pool
        if isinstance(pool, _NotOpen):
            pool.take()
        return pool  # type: ignore[no-any-return]  # see `connect`

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        self._services = services
        self._mapped = Mapped.of(self, services, subjects=self._subjects, read=mapped_words, folds=True)
        self._effects.clear()

    async def health(self) -> Health:
        """Ask the server for its role and version; the pool's state is in the answer.

        The role is what the database says of itself (``Updateability``): the readable secondary of an active
        geo-replication, or of a service tier's read scale-out, is a secondary.
        """
        if isinstance(self._pool, _NotOpen):
            return Health("unhealthy", detail="not open")
        try:
            async with asyncio.timeout(_HEALTH_DEADLINE):
                self._pool.give(await self._pool.acquire(outage=0.0))  # a server that is away is told at once
                await self.query_value("SELECT 1")  # the connection is made and warm: the next answer's time is its own
                start = time.perf_counter()
                row = await self.query_one(ASK)
                latency = time.perf_counter() - start
        except (DatavernError, TimeoutError) as error:
            return self._unwell(error)
        found = standing(row)
        return Health(
            "healthy",
            role="primary" if found.writable else "secondary",
            latency=latency,
            version=found.version,
            pool=self._pool.stats(),
            facts={**found.facts, "encrypted": self.encrypted},
        )

    def _unwell(self, error: Exception) -> Health:
        stats, most = self.stats(), self.settings.pool.max
        if isinstance(error, TimeoutError | PoolTimeout) and stats.in_use >= most:
            return Health("degraded", detail=f"all {most} connections are in use (pool.max)", pool=stats)
        detail = str(error) if isinstance(error, DatavernError) else f"no answer within {_HEALTH_DEADLINE:g} s"
        return Health("unhealthy", detail=detail, pool=stats)

    # ---- statements -------------------------------------------------------------------------------------------------

    async def query(self, sql: str, parameters: Parameters = ()) -> Sequence[Row]:
        """All rows of a statement, of its first result set where it has several; empty when there are none."""
        does = self._effects.get(sql)
        if does is None:
            does = self._checked(sql)
        _, answer = await self._send(sql, self._values(sql, parameters), does)
        return answer.sets[0] if answer.sets else []

    async def query_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        rows = await self.query(sql, parameters)
        return rows[0] if rows else None

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        rows: Any = await self.query(sql, parameters)
        return rows[0][0] if rows else None

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement; how many rows it inserted, updated or deleted (0 for anything else).

        Without parameters the text may hold several statements. Where they are all SELECT, INSERT, UPDATE, DELETE or
        MERGE, parted by semicolons, all or none of them take effect; any other batch is T-SQL's own affair, which goes
        on after the error of a statement, or does not. The count is the last statement's.

        With `audit` or `idempotency_key` (see `datavern.contracts.capabilities.Session`) it is a transaction of the
        statement and them, so what cannot run in one is refused.
        """
        if audit is not None or idempotency_key is not None:
            return await self._fusing.execute(sql, parameters, audit, idempotency_key)
        does = self._effects.get(sql)
        if does is None:
            does = self._checked(sql)
        values = self._values(sql, parameters)
        if does is Effect.WRITES and not values and several(sql):
            _, answer = await self._send(_ATOMIC.format(sql), values, does, atomic=True)
        else:
            _, answer = await self._send(sql, values, does)
        return answer.affected(does)

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """Run a statement once for each set of parameters, all or none of them; how many sets were run."""
        does = self._effect_of(sql)
        sets = self._sets(sql, parameters)
        if sets:
            await self._send(sql, sets, does, work=_many)
        return len(sets)

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

    async def purge_idempotency(self, older_than: dt.timedelta = KEPT) -> int:
        """Forget the idempotency keys of changes that are older; how many. A change could be made again after that.

        Raises:
            ConfigurationError: no length of time.
        """
        return await self._fusing.purge(older_than)

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> RowStream:
        """Rows in constant memory, `batch_size` of them fetched at a time."""
        return RowStream(self, sql, parameters, batch_size=batch_size)

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
            await asyncio.sleep(_rest(failure))
            raise failure

        @asynccontextmanager
        async def keyed() -> AsyncIterator[AzureSQLTransaction]:
            await self._fusing.prepare_keys()
            async with self.transaction(isolation=isolation) as tx:
                yield tx

        def begin() -> AzureSQLTransaction:
            return self.transaction(isolation=isolation, read_only=read_only)

        if idempotency_key is not None:
            checked_key(idempotency_key)
            if read_only:
                raise ConfigurationError("idempotency_key: what only reads needs none, and cannot hold one")
        return await run_in_transaction(
            begin if idempotency_key is None else keyed,
            rested,
            attempts=attempts,
            idempotency_key=idempotency_key,
            budget=self._budget,
            patience=self.settings.pool.acquire,
        )

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

    async def _send(
        self,
        sql: str,
        values: Sequence[Any],
        does: Effect,
        *,
        work: Callable[..., Any] | None = None,
        keep: bool = False,
        begin: bool = False,
        atomic: bool = False,
    ) -> tuple[Slot[AzureSQLConnection], Answer]:
        """Run a statement on a connection of the pool, again where that is known to be right.

        Args:
            sql: its text, checked.
            values: its parameters, encoded.
            does: what it may do.
            work: what does it on the thread, instead of `Wire.run`.
            keep: do not give the connection back.
            begin: read nothing yet.
            atomic: a failure may leave a setting behind.
        """
        pool = self._pool
        attempt, deadline = 0, 0.0
        self._budget.earn()
        if work is None:
            work = _touching if does is Effect.TOUCHES and not begin else _begin if begin else _plain
        while True:
            slot = pool.take() or await pool.acquire()
            connection = slot.connection
            try:
                answer = await connection.call(work, connection.wire, sql, values)
            except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
                found = self._found(error, does)
            except BaseException:
                pool.recover(slot)
                raise
            else:
                if does is Effect.TOUCHES:
                    slot.touched = True
                if not keep:
                    pool.give(slot)
                return slot, answer
            if does is Effect.TOUCHES or atomic:
                slot.touched = True
            self._part(slot, found)
            attempt += 1
            deadline = deadline or time.monotonic() + self.settings.retry
            rest = _rest(found.error) or backoff(attempt, base=0.05, longest=4.0)
            if not found.again or time.monotonic() + rest > deadline or not self._budget.spend():
                raise found.error
            await asyncio.sleep(rest)

    def _found(self, error: Exception, does: Effect) -> Fault:
        if isinstance(error, _LeftOpen):
            raised = QueryRejected(
                f"{self.name}: the statement left a transaction open, and it was rolled back: use transaction()",
                provider=self.name,
            )
            return Fault(raised)
        if isinstance(error, AtCommit):
            return fault(error.error, name=self.name, stage="commit", effect=does)
        return fault(error, name=self.name, stage="statement", effect=does)

    def _part(self, slot: Slot[AzureSQLConnection], found: Fault) -> None:
        if found.connection == "keep":
            self._pool.give(slot)
        elif found.connection == "renew":
            self._pool.renew(slot)
        else:
            self._pool.discard(slot)

    def _effect_of(self, sql: str, *, audited: bool = False) -> Effect:
        does = self._effects.get(sql)
        return self._checked(sql, audited=audited) if does is None else does

    def _checked(self, sql: str, *, audited: bool = False) -> Effect:
        """What a text does, once it is sure that it may be sent. Raises `QueryRejected`, or `PrivacyError`."""
        name = self.name
        if not isinstance(sql, str):
            raise QueryRejected(f"{name}: a statement is a str, not {type(sql).__name__}", provider=name)
        mapped = self._mapped
        passes = mapped is not None and (audited or self._subjects.owns(sql))
        if passes and (does := self._audited.get(sql)) is not None:
            return does
        problem, position = _problem(sql)
        if problem:
            raise QueryRejected(f"{name}: {problem}", provider=name, position=position)
        if control := ends_transaction(sql):
            raise QueryRejected(
                f"{name}: {control} would begin or end a transaction below us: use transaction() and savepoint()",
                provider=name,
            )
        if mapped is not None and not passes:
            mapped.check(sql)
        does = effect(sql)
        known = self._audited if passes else self._effects
        if len(sql) <= _LONGEST_KNOWN_TEXT:
            if len(known) >= _KNOWN_TEXTS:
                known.clear()
            known[sql] = does
        return does

    def _values(self, sql: str, parameters: Parameters, *, number: int = 0) -> list[Any]:
        """The parameters, checked against the text.

        Raises:
            QueryRejected: there are too few or too many, or one is of a type that T-SQL does not have.
        """
        name = self.name
        if type(parameters) is not list and type(parameters) is not tuple:
            positional(parameters, name=name)
        found = places(sql)
        wanted = 0 if found is None else found.highest
        if found is None and parameters:
            raise QueryRejected(f"{name}: a quotation mark, bracket or comment is not closed", provider=name)
        if found is not None and (len(parameters) != wanted or found.missing):
            which = f" of set {number}" if number else ""
            gap = f"; @P{found.missing} is not among them" if found.missing else ""
            raise QueryRejected(
                f"{name}: the statement takes {wanted} parameters{gap}, {len(parameters)} were given{which}",
                provider=name,
            )
        if wanted > _MOST_PARAMETERS:
            raise QueryRejected(f"{name}: a statement takes at most {_MOST_PARAMETERS} parameters", provider=name)
        return bound(parameters, name=name, number=number) if parameters else []  # type: ignore[arg-type]  # positional

    def _sets(self, sql: str, parameters: Sequence[Parameters]) -> list[list[Any]]:
        positional(parameters, name=self.name)
        return [self._values(sql, given, number=number) for number, given in enumerate(parameters, 1)]


# ---- on the connection's thread -------------------------------------------------------------------------------------


def _plain(wire: Wire, sql: str, values: Sequence[Any]) -> Answer:
    return wire.run(sql, values)


def _touching(wire: Wire, sql: str, values: Sequence[Any]) -> Answer:
    """Run what may do anything. A transaction that it left open is an error of its own."""
    answer = wire.run(sql, values)
    if wire.in_transaction:
        raise _LeftOpen
    return answer


class _LeftOpen(Exception):
    """A statement of its own has begun a transaction and not ended it."""


def _begin(wire: Wire, sql: str, values: Sequence[Any]) -> None:
    wire.begin(sql, values)


def _many(wire: Wire, sql: str, sets: Sequence[Sequence[Any]]) -> None:
    many(wire, sql, sets, inside=False)


def _problem(sql: str) -> tuple[str, int | None]:
    """What keeps a text from being sent, and the character where it stands."""
    if "\0" in sql:
        place = sql.index("\0") + 1
        return f"the statement holds a NUL character, at character {place}", place
    if not sql.isascii():
        try:
            sql.encode()
        except UnicodeEncodeError:
            return "the statement holds half a surrogate pair, which is not valid Unicode", None
    tokens = places(sql)
    if tokens is not None and tokens.empty:
        return "the text holds no statement", None
    return "", None


def _rest(error: Exception) -> float:
    """Seconds that the service asks for."""
    from datavern.engines.azuresql import connection  # noqa: PLC0415  (where the number is kept)

    return connection.THROTTLED_REST if getattr(error, "code", None) == str(THROTTLED) else 0.0


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


def _location(settings: AzureSQLSettings, path: str) -> Location:
    """Where the data is: the region is evidence, the label is not."""
    if settings.region is None:
        return settings.location or Location.GLOBAL
    found = locate(settings.region)
    if settings.location is not None and settings.location != found:
        raise ConfigurationError(
            f"{path}.location: is {settings.location}, and the region {settings.region} is in {found}: leave it out"
        )
    return found
