"""The provider of SQLite databases."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from datavern.contracts.capabilities import Capabilities, Isolation, Services
from datavern.contracts.errors import CapabilityMissing, ConfigurationError, ConnectionFailed, QueryRejected
from datavern.contracts.fused import checked_key
from datavern.contracts.values import Compliance, Health, Location, Parameters, PoolStats
from datavern.engines.ground import RelationalGround
from datavern.engines.sqlite.fused import Fusing, SQLiteGuarded, run_fused
from datavern.engines.sqlite.health import SQLiteRoles, probe, stats
from datavern.engines.sqlite.jobs import READ, WRITE, Job, Kind, Run, classify
from datavern.engines.sqlite.lanes import Lanes
from datavern.engines.sqlite.online_backup import Upkeep
from datavern.engines.sqlite.searches import SQLiteSearches
from datavern.engines.sqlite.session import Statements
from datavern.engines.sqlite.settings import SQLiteSettings, parse_url
from datavern.engines.sqlite.streams import Stream
from datavern.engines.sqlite.temporary import makes_temporary
from datavern.engines.sqlite.transactions import SQLiteTransaction

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from datavern.background import Background
    from datavern.connectors.coalescing import KeyedRead
    from datavern.contracts.fused import Entry

__all__ = ["SQLiteProvider"]

T = TypeVar("T")
_ISOLATION = ("read committed", "repeatable read", "snapshot", "serializable")
_TEXTS = 4096  # statement texts whose kind is remembered
_PATIENCE = 5.0  # seconds that closing waits for what runs, before it interrupts it


class SQLiteProvider(Statements, SQLiteSearches, Upkeep, RelationalGround):
    """A SQLite database: one file, or ``":memory:"``.

    One thread writes and a few read, each with its own connection; no long read blocks a quick one, and writes that
    come together are committed together, each durable before it is acknowledged. Placeholders are ``?`` and ``:name``.
    Values are bound as `datavern.engines.sqlite.bind` says; rows are `sqlite3.Row`.

    What stands in a file: deleted content is overwritten (`secure_delete`), but the write-ahead log beside the file
    keeps older pages until they are checkpointed and the log is cut: `checkpoint` does both, and so does `close`.
    The file is not encrypted: what must not be read from a stolen disk is sealed field by field, or lies on an
    encrypted disk.

    Args:
        path: the file, or ``":memory:"``. A new file gets mode 0600; its folder must be there.
        name: unique within a manager.
        location: where the data is: "norway", "eu" or "global".
        region: a region identifier, ``azure:norwayeast``: the location follows from it.
        compliance: rule sets to enforce: "gdpr", "nsm".
        keyring: where the keys are, for a provider that belongs to no manager: ``file:keys``.
        settings: everything else: see `SQLiteSettings`.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    engine = "sqlite"
    kind = SQLiteSettings
    needed = ("path", "a file, or ':memory:'")
    settings: SQLiteSettings
    _parse_url = staticmethod(parse_url)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "sqlite",
        location: Location | str | None = None,
        region: str | None = None,
        compliance: Iterable[Compliance] = (),
        keyring: str | None = None,
        readers: int = 2,
        max_readers: int = 8,
        busy_timeout: float = 5.0,
        acquire: float = 30.0,
        synchronous: Literal["full", "extra", "normal", "off"] = "full",
        foreign_keys: bool = True,
        trusted_schema: bool = False,
        secure_delete: bool = True,
        cache_size: int = 8192,
        mmap_size: int = 0,
    ) -> None:
        values: dict[str, Any] = {
            "path": path, "name": name, "location": location, "region": region, "compliance": compliance,
            "keyring": keyring, "readers": readers, "max_readers": max_readers, "busy_timeout": busy_timeout,
            "acquire": acquire, "synchronous": synchronous, "foreign_keys": foreign_keys,
            "trusted_schema": trusted_schema, "secure_delete": secure_delete, "cache_size": cache_size,
            "mmap_size": mmap_size,
        }  # fmt: skip
        self._set_up(values, path=f"databases.{name}")

    def _set_up(self, values: dict[str, Any], *, path: str) -> None:
        if isinstance(values["path"], os.PathLike):
            values["path"] = os.fspath(values["path"])
        self._begin_with(values, path=path)
        self._lanes: Lanes | None = None
        self._opening: asyncio.Lock | None = None
        self._kinds: dict[str, Kind] = {}
        self._holders: set[SQLiteTransaction | Stream] = set()
        from datavern.engines.people import RelationalPeople  # noqa: PLC0415
        from datavern.engines.sqlite.ages import SQLiteAges  # noqa: PLC0415
        from datavern.engines.sqlite.columns import SQLiteColumns  # noqa: PLC0415
        from datavern.engines.sqlite.ledger import SQLiteLedger  # noqa: PLC0415  (a provider needs it, the name does not)
        from datavern.engines.sqlite.people import moments  # noqa: PLC0415
        from datavern.engines.sqlite.samples import SQLiteSamples  # noqa: PLC0415
        from datavern.engines.sqlite.subjects import SQLiteSubjects  # noqa: PLC0415

        self._subjects = SQLiteSubjects(self)
        self._ledger = SQLiteLedger(self)
        self._fusing = Fusing(self)
        self._capabilities = Capabilities(
            session=self,
            transactions=self,
            subjects=self._subjects,
            ages=SQLiteAges(self, self._subjects),
            columns=SQLiteColumns(self, self._subjects),
            ledger=self._ledger,
            guarded=SQLiteGuarded(self),
            point_reads=self,
            samples=SQLiteSamples(self),
            people=RelationalPeople(self, self._subjects, moments),
            roles=SQLiteRoles(self),
        )

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the database, and make an empty one when there is no file. Idempotent.

        Raises:
            ConfigurationError: the path cannot hold a database: a folder, a network file system.
            ConnectionFailed: it is not a database, or this user may not read and write it.
        """
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._lanes is None:
                from datavern.engines.sqlite.opening import open_lanes  # noqa: PLC0415  (what opens is loaded then)

                self._lanes = await open_lanes(self.name, self.settings, self._kinds)

    async def close(self) -> None:
        """Finish what was accepted, roll back what is open, cut the write-ahead log and close. Idempotent.

        Writes that were waiting for their commit are committed; reads that wait are refused. What runs for longer than
        a few seconds is interrupted.
        """
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            from datavern.engines.sqlite.opening import close_lanes  # noqa: PLC0415  (loaded when it was opened)

            await close_lanes(lanes, self._holders)

    def _ready(self) -> Lanes:
        lanes = self._lanes
        if lanes is None:
            raise ConnectionFailed(f"{self.name} is not open: use it inside `async with`", provider=self.name)
        return lanes

    # ---- statements -------------------------------------------------------------------------------------------------

    def _submit(self, run: Run, sql: Any, parameters: Any) -> Job:
        lanes = self._lanes
        if lanes is None:
            lanes = self._ready()
        kind = self._kinds.get(sql) if type(sql) is str else None
        if kind is None:
            kind = self._kind(sql)
            if kind is WRITE:
                self._refuse_temporary(sql)
        job = Job(lanes.loop, run, sql, parameters, kind)
        if kind is READ and lanes.shared:
            lanes.read(job)
        else:
            lanes.writer.add(job)
        return job

    def _send(self, run: Run, sql: Any, parameters: Any) -> Job:
        lanes = self._ready()
        job = Job(lanes.loop, run, sql, parameters, WRITE)
        lanes.writer.add(job)
        return job

    def _submit_fused(self, sql: Any, parameters: Any, audit: Entry | None, key: str | None) -> Job:
        fused = self._fusing.fused(sql, parameters, audit, key)
        self._refuse_temporary(sql)
        return self._send(run_fused, fused, parameters)

    def _refuse_temporary(self, sql: str) -> None:
        if makes_temporary(sql):
            raise QueryRejected(
                "a temporary table, view or trigger goes with its transaction: make it in one, with transaction()",
                provider=self.name,
            )

    def _abandon(self, job: Job) -> None:
        lanes = self._lanes
        if lanes is not None:
            lanes.abandon(job)

    def _kind(self, sql: Any) -> Kind:
        kinds = self._kinds
        found = kinds.get(sql) if isinstance(sql, str) else None
        if found is None:
            found = classify(sql)
            if self._mapped is not None:
                if self._subjects.owns(sql):
                    return found  # not remembered: a text of the caller's that reads the same is another
                self._mapped.check(sql)
            if found is WRITE and makes_temporary(sql):
                return found  # not remembered: only a transaction may run it
            if len(kinds) >= _TEXTS:
                kinds.clear()
            kinds[sql] = found
        return found

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> Stream:
        """Rows in constant memory, from one snapshot; writes go on meanwhile, this task's own among them.

        A database in memory has one connection: there the rows are copied at once.

        Raises:
            QueryRejected: the statement writes (use `query` for INSERT … RETURNING).
        """
        return Stream(self, sql, parameters, batch_size)

    def coalesced(
        self,
        table: str,
        *,
        key: str,
        columns: Sequence[str] | None = None,
        batch_size: int = 100,
    ) -> KeyedRead:
        """Hot reads by key: ``row = await read(7)``. A statement for each: the lanes gather them already.

        A lane runs what is queued in one go and wakes the loop once for all of it; merging statements would gain
        nothing. The call is here so that a program may be written once for every engine.

        Args:
            table: a table or view, ``schema.table`` or ``table``; names are quoted.
            key: the column that is compared with the key.
            columns: which to read, the key among them; all of them when None.
            batch_size: of no meaning here.

        Raises:
            ConfigurationError: a name is empty, or the key is not among the columns.
        """
        from datavern.connectors.coalescing import KeyedRead, check_read  # noqa: PLC0415  (once for each kind of read)

        check_read(table, key, columns, batch_size)
        quoted, store = self._subjects.quoted, self._subjects.quoted_store(table)
        # With the table before it a name is a column's: alone, one that is none would be read as a text.
        names = "t.*" if columns is None else ", ".join(f"t.{quoted(name)}" for name in columns)
        return KeyedRead(self, f"SELECT {names} FROM {store} AS t WHERE t.{quoted(key)} = ?")  # noqa: S608  (quoted)

    # ---- transactions -----------------------------------------------------------------------------------------------

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False, tenant: str | None = None
    ) -> SQLiteTransaction:
        """A transaction. SQLite's are serializable, which is as much as any `isolation` asks for.

        Args:
            isolation: any of the four; the transaction is serializable.
            read_only: reads one snapshot, blocks no writer, and cannot write.
            tenant: there is no row-level security in SQLite.

        Raises:
            CapabilityMissing: a tenant was given.
            ConfigurationError: no such isolation.
        """
        if tenant is not None:
            raise CapabilityMissing("row-level security", self.name, "SQLite has none: keep a file for each tenant")
        if isolation is not None and isolation not in _ISOLATION:
            raise ConfigurationError(f"isolation: expected one of {', '.join(_ISOLATION)}")
        return SQLiteTransaction(self, read_only=read_only)

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

        Args:
            work: may be called several times; what it does outside of the transaction is done as often.
            isolation: as `transaction`.
            read_only: as `transaction`.
            attempts: transactions to begin, at the most.
            idempotency_key: names what is done, for seven days: it is done once, however often it is asked for. With
                one, a commit without an answer is looked into, and begun again where it did not happen.

        Returns:
            What `work` gave; None where an earlier call with the key has done it.

        Raises:
            OutcomeUnknown: a commit without an answer, and no key.
            ConfigurationError: the key may not be one, or is given for what only reads.
        """

        def begin() -> AbstractAsyncContextManager[SQLiteTransaction]:
            return self.transaction(isolation=isolation, read_only=read_only)

        if idempotency_key is not None:
            checked_key(idempotency_key)
            if read_only:
                raise ConfigurationError("idempotency_key: what only reads needs none, and cannot hold one")
        from datavern.connectors.retry import run_in_transaction  # noqa: PLC0415  (brings random; waits for its use)

        return await run_in_transaction(begin, work, attempts=attempts, idempotency_key=idempotency_key)

    @overload
    def sqlalchemy_engine(self, *, background: None = None, **options: Any) -> AsyncEngine: ...

    @overload
    def sqlalchemy_engine(self, *, background: Background[Any], **options: Any) -> Engine: ...

    def sqlalchemy_engine(self, *, background: Background[Any] | None = None, **options: Any) -> AsyncEngine | Engine:
        """SQLAlchemy's async engine on this provider's lanes, with sealed columns.

        Args:
            background: where this provider is open; then it is an engine for code without asyncio, and any thread.
            options: as `create_async_engine` takes them (``echo=True``), but for those of a pool.

        Raises:
            ConfigurationError: an option that is the provider's to decide; greenlet is not installed.
        """
        from datavern.engines.alchemy.engine import make_engine  # noqa: PLC0415  (loads SQLAlchemy's asyncio)
        from datavern.engines.sqlite.alchemy import Dialect, WaitingDialect  # noqa: PLC0415

        return make_engine(self, (Dialect, WaitingDialect), options, background)

    # ---- how it is --------------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Ask the database how it is: a read through a reader, the files' sizes, the lanes. Never raises."""
        return await probe(self, self._lanes)

    def stats(self) -> PoolStats:
        """The lanes as a pool: how many there are, and what waits."""
        return stats(self._lanes)

    # ---- what belongs to the features -------------------------------------------------------------------------------

    @property
    def encrypted(self) -> bool:
        """The connection never leaves this machine."""
        return True

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        self._services = services
        from datavern.engines.mapped import Mapped  # noqa: PLC0415  (compiles expressions; only a manager needs them)
        from datavern.engines.sqlite.words import words  # noqa: PLC0415

        self._mapped = Mapped.of(self, services, subjects=self._subjects, read=words, folds=True)
        self._kinds.clear()
