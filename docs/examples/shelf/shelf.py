"""A provider for Datavern, made from an empty file: docs/new-provider.md says why each part is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from boards import BoardError, Found, Statement, Table

from datavern.config import ProviderSettings, checked
from datavern.connectors.retry import run_in_transaction
from datavern.contracts.capabilities import Capabilities, Isolation, Provider, Services
from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    ConnectionFailed,
    ConstraintViolated,
    DriverError,
    ProviderError,
    QueryRejected,
)
from datavern.contracts.regions import locate
from datavern.contracts.values import Compliance, Health, Location, Parameters

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShelfSettings(ProviderSettings):
    """What every provider has, and the shelf's label."""

    shelf: str


class Shelf:
    """What is kept under one label, for as long as the process lives."""

    def __init__(self) -> None:
        self.tables: Mapping[str, Table] = {}
        self.writing = asyncio.Lock()  # one writer at a time; readers read what is there


SHELVES: dict[str, Shelf] = {}


class Row:
    """A row answers by name and by position, and makes a dict."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self._names, self._values = names, values

    def __getitem__(self, key: str | int) -> Any:
        return self._values[key if isinstance(key, int) else self._names.index(key)]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return iter(self._values)

    def keys(self) -> tuple[str, ...]:
        return self._names


def translated(name: str, error: BoardError) -> tuple[ProviderError, DriverError]:
    """The driver's error as the contract's, and the scrubbed copy that it is raised from."""
    cause = DriverError.of(error, error.code, error.column)
    if error.code in {"UNIQUE", "REQUIRED"}:
        message = f"{name}: a row breaks the rule {error.code} of the column {error.column}"
        return ConstraintViolated(message, provider=name, code=error.code, constraint=error.column), cause
    said = str(error) if error.code == "PARAMETERS" else error.code.lower()
    return QueryRejected(f"{name}: the statement was refused: {said}", provider=name, code=error.code), cause


class Session:
    """Statements, one by one. A provider runs each by itself; a transaction, all of them together."""

    provider: ShelfProvider

    async def _run(self, sql: str, sets: Sequence[Parameters]) -> Found:
        raise NotImplementedError

    async def query(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        found = await self._run(sql, [parameters])
        return [Row(found.names, values) for values in found.rows]

    async def query_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        rows = await self.query(sql, parameters)
        return rows[0] if rows else None

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        row = await self.query_one(sql, parameters)
        return None if row is None else row[0]

    async def execute(
        self, sql: str, parameters: Parameters = (), *, audit: Any = None, idempotency_key: str | None = None
    ) -> int:
        if audit is not None or idempotency_key is not None:
            raise CapabilityMissing("ledger", self.provider.name, NO_TABLES)
        return (await self._run(sql, [parameters])).changed

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        if parameters:
            await self._run(sql, parameters)
        return len(parameters)

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> Stream:
        return Stream(self, sql, parameters, batch_size)


class Stream:
    """Rows of one moment. They are in memory already; others get their turn after each batch."""

    def __init__(self, session: Session, sql: str, parameters: Parameters, batch_size: int) -> None:
        self._session, self._asked, self._batch = session, (sql, parameters), batch_size

    async def __aenter__(self) -> AsyncIterator[Row]:
        return self._rows(await self._session.query(*self._asked))

    async def _rows(self, rows: list[Row]) -> AsyncIterator[Row]:
        for number, row in enumerate(rows, 1):
            yield row
            if number % self._batch == 0:
                await asyncio.sleep(0)

    async def __aexit__(self, *exc: object) -> None:
        pass


def usable(name: str, value: Any) -> Any:
    """A value, if this engine keeps it as it is."""
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**63
    elif isinstance(value, str):
        fits = "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    else:
        fits = value is None or isinstance(value, float | bytes)
    if not fits:
        raise QueryRejected(f"{name}: a {type(value).__name__} that cannot be kept", provider=name)
    return value


NO_TABLES = "the boards have neither SQLAlchemy's SQL nor an order of commits"


class ShelfProvider(Session):
    """A database in memory: every provider with the same `shelf` sees the same tables. Placeholders are ``?``."""

    engine = "shelf"
    encrypted = True  # nothing leaves the process

    def __init__(
        self,
        shelf: str,
        *,
        name: str = "shelf",
        location: Location | str | None = None,
        region: str | None = None,
        compliance: Iterable[Compliance] = (),
    ) -> None:
        values = {"name": name, "location": location, "region": region, "compliance": frozenset(compliance)}
        self.settings = checked(ShelfSettings, {**values, "shelf": shelf}, path=f"databases.{name}")
        self.name = name
        self.region = region
        self.location = self.settings.location or (locate(region) if region else Location.GLOBAL)
        self.compliance: frozenset[str] = frozenset(self.settings.compliance)
        self.provider = self
        self.face: Provider = self
        self.closed: asyncio.Event | None = None  # set when the provider closes; None before it opens
        self.shelf = Shelf()
        self.capabilities = Capabilities(
            session=self,
            transactions=self,
            reasons={
                "subjects": "the boards do not tell their schema",
                "ledger": NO_TABLES,
                "point_reads": "a read costs no round trip that could be saved",
                "guarded": NO_TABLES,
            },
        )

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any]) -> Self:
        checked(ShelfSettings, {"name": name, **settings}, path=f"databases.{name}")  # an unknown key, by its path
        return cls(name=name, **settings)

    # ---- opening and closing ----

    async def connect(self) -> None:
        if self.closed is None:
            self.shelf, self.closed = SHELVES.setdefault(self.settings.shelf, Shelf()), asyncio.Event()

    async def close(self) -> None:
        if self.closed is not None:
            self.closed.set()
            self.closed = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def open_until(self) -> asyncio.Event:
        if self.closed is None:
            raise ConnectionFailed(f"{self.name} is not open: use it inside `async with`", provider=self.name)
        return self.closed

    def attach(self, services: Services) -> None:
        """Nothing here needs keys."""

    async def health(self) -> Health:
        start = time.perf_counter()
        try:
            await self.query("SELECT 1")
        except ProviderError as error:
            return Health("unhealthy", detail=str(error))
        return Health("healthy", "primary", time.perf_counter() - start, version="1")

    # ---- statements ----

    async def read(self, sql: Any) -> Statement:
        """A statement, ready to be run."""
        closed = self.open_until()
        failed = None
        if not isinstance(sql, str) or "\0" in sql:
            raise QueryRejected(f"{self.name}: a statement is text without NUL", provider=self.name)
        try:
            statement = Statement(sql)
        except BoardError as error:
            failed = translated(self.name, error)
        if failed is not None:  # outside the except block: the error's context would quote the statement
            raise failed[0] from failed[1]
        if statement.kind == "wait":
            try:
                async with asyncio.timeout(statement.seconds):
                    await closed.wait()
            except TimeoutError:
                return statement
            raise ConnectionFailed(f"{self.name} was closed", provider=self.name)
        return statement

    def apply(self, tables: Mapping[str, Table], statement: Statement, sets: Sequence[Parameters]) -> Found:
        values = [[usable(self.name, value) for value in parameters] for parameters in sets]
        failed = None
        try:
            return statement.run(tables, *values)
        except BoardError as error:
            failed = translated(self.name, error)
        raise failed[0] from failed[1]

    async def _run(self, sql: str, sets: Sequence[Parameters]) -> Found:
        statement = await self.read(sql)
        if statement.kind in {"select", "wait"}:
            return self.apply(self.shelf.tables, statement, sets)
        async with self.shelf.writing:
            self.open_until()
            found = self.apply(self.shelf.tables, statement, sets)
            self.shelf.tables = found.tables
        return found

    # ---- transactions ----

    def transaction(self, *, isolation: Isolation | None = None, read_only: bool = False) -> Transaction:
        if isolation not in (None, "read committed", "repeatable read", "snapshot", "serializable"):
            raise ConfigurationError(f"isolation: {isolation} is none; these are serializable whatever is asked for")
        return Transaction(self, read_only=read_only)

    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        attempts: int = 5,
    ) -> T:
        def begin() -> Transaction:
            return self.transaction(isolation=isolation, read_only=read_only)

        return await run_in_transaction(begin, work, attempts=attempts)


class Transaction(Session):
    """Works on tables of its own, and puts them in the place of the shelf's when it commits."""

    def __init__(self, provider: ShelfProvider, *, read_only: bool) -> None:
        self.provider, self._read_only = provider, read_only
        self._tables: Mapping[str, Table] | None = None
        self._broken = False

    async def __aenter__(self) -> Self:
        self._closed, self._shelf = self.provider.open_until(), self.provider.shelf
        if not self._read_only:
            await self._shelf.writing.acquire()
            if self._closed.is_set():
                self._shelf.writing.release()
                raise ConnectionFailed(f"{self.provider.name} was closed", provider=self.provider.name)
        self._tables = self._shelf.tables
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        tables, self._tables = self._tables, None
        assert tables is not None
        if not self._read_only:
            if kind is None and not self._broken and not self._closed.is_set():
                self._shelf.tables = tables
            self._shelf.writing.release()
        name = self.provider.name
        if kind is None and self._closed.is_set():
            raise ConnectionFailed(f"{name} was closed, and the transaction rolled back", provider=name)
        if kind is None and self._broken:
            raise QueryRejected(f"{name}: a statement failed, and the transaction was rolled back", provider=name)

    async def _run(self, sql: str, sets: Sequence[Parameters]) -> Found:
        name = self.provider.name
        if self._tables is None:
            raise QueryRejected(f"{name}: the transaction is over", provider=name)
        broken, self._broken = self._broken, True
        statement = await self.provider.read(sql)
        if self._read_only and statement.kind not in {"select", "wait"}:
            raise QueryRejected(f"{name}: the transaction only reads", provider=name)
        found = self.provider.apply(self._tables, statement, sets)
        self._tables, self._broken = found.tables, broken
        return found

    def savepoint(self) -> Savepoint:
        return Savepoint(self)


class Savepoint:
    """Puts the transaction back to where it was, when an exception leaves the block."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def __aenter__(self) -> Transaction:
        self._before = self._transaction._tables, self._transaction._broken
        return self._transaction

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._transaction._tables, self._transaction._broken = self._before
