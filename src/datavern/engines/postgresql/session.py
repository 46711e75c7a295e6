"""Statements on connections of the pool: what a PostgreSQL provider is asked most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.connectors.pool import Slot
from datavern.contracts.errors import QueryRejected
from datavern.contracts.values import Parameters, Row
from datavern.engines.postgresql.errors import Fault, fault
from datavern.engines.postgresql.many import many
from datavern.engines.postgresql.pooled import session_bound
from datavern.engines.postgresql.statements import TOUCHES, Effect, effect, ends_transaction, words
from datavern.engines.postgresql.streams import RowStream
from datavern.engines.postgresql.transaction import PostgreSQLTransaction, affected

if TYPE_CHECKING:
    import asyncpg

    from datavern.contracts.fused import Entry
    from datavern.engines.mapped import Mapped
    from datavern.engines.postgresql.fused import Fusing
    from datavern.engines.postgresql.subjects import PostgreSQLSubjects

__all__ = ["PostgreSQLStatements"]

_KNOWN_TEXTS = 4096
_LONGEST_KNOWN_TEXT = 16_384


class PostgreSQLStatements:
    """The `Session` of a PostgreSQL provider."""

    name: str
    _pool: Any
    _pooled: bool
    _mapped: Mapped | None
    _subjects: PostgreSQLSubjects
    _fusing: Fusing
    _effects: dict[str, Effect]
    _audited: dict[str, Effect]
    _part: Callable[[Slot[asyncpg.Connection], Fault], None]

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
                if does is TOUCHES:
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
                if does is TOUCHES:
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
                if does is TOUCHES:
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
                if does is TOUCHES:
                    self._touched(slot)
                pool.give(slot)
                return len(parameters)
            await self._end(slot, sql, found)

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> RowStream:
        """Rows in constant memory, `batch_size` of them fetched at a time, in a transaction of their own."""
        provider: Any = self
        transaction = PostgreSQLTransaction(provider, "BEGIN", read_only=False)
        return RowStream(transaction, sql, parameters, batch_size=batch_size, own=True)

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
        if does is TOUCHES or self._pooled:
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


def _surrogate(sql: str) -> bool:
    try:
        sql.encode()
    except UnicodeEncodeError:
        return True
    return False
