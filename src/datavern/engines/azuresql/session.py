"""Statements on connections of the pool: what an Azure SQL provider is asked most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from datavern.connectors.pool import Slot
from datavern.connectors.retry import Budget, backoff
from datavern.contracts.errors import QueryRejected
from datavern.contracts.values import Parameters, Row
from datavern.engines.azuresql.connection import AzureSQLConnection
from datavern.engines.azuresql.errors import Fault, fault
from datavern.engines.azuresql.many import AtCommit, many
from datavern.engines.azuresql.numbers import THROTTLED
from datavern.engines.azuresql.statements import Effect, effect, ends_transaction, places, several
from datavern.engines.azuresql.streams import RowStream
from datavern.engines.azuresql.values import bound, positional
from datavern.engines.counts import takes

if TYPE_CHECKING:
    from datavern.contracts.fused import Entry
    from datavern.engines.azuresql.fused import Fusing
    from datavern.engines.azuresql.settings import AzureSQLSettings
    from datavern.engines.azuresql.subjects import AzureSQLSubjects
    from datavern.engines.azuresql.wire import Answer, Wire
    from datavern.engines.mapped import Mapped

__all__ = ["AzureSQLStatements", "rest"]

_KNOWN_TEXTS = 4096
_LONGEST_KNOWN_TEXT = 16_384
_MOST_PARAMETERS = 2098  # 2100 of sp_executesql, less the two that it takes itself
_ATOMIC = "SET XACT_ABORT ON; BEGIN TRANSACTION;\n{}\n;COMMIT TRANSACTION; SET XACT_ABORT OFF"


class AzureSQLStatements:
    """The `Session` of an Azure SQL provider."""

    name: str
    settings: AzureSQLSettings
    _pool: Any
    _budget: Budget
    _mapped: Mapped | None
    _subjects: AzureSQLSubjects
    _fusing: Fusing
    _effects: dict[str, Effect]
    _audited: dict[str, Effect]
    _part: Callable[[Slot[AzureSQLConnection], Fault], None]

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

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> RowStream:
        """Rows in constant memory, `batch_size` of them fetched at a time."""
        provider: Any = self
        return RowStream(provider, sql, parameters, batch_size=batch_size)

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
            pause = rest(found.error) or backoff(attempt, base=0.05, longest=4.0)
            if not found.again or time.monotonic() + pause > deadline or not self._budget.spend():
                raise found.error
            await asyncio.sleep(pause)

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
                f"{name}: {takes(wanted, len(parameters), beside=gap)}{which}",
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


def rest(error: Exception) -> float:
    """Seconds that the service asks for."""
    from datavern.engines.azuresql import connection  # noqa: PLC0415  (where the number is kept)

    return connection.THROTTLED_REST if getattr(error, "code", None) == str(THROTTLED) else 0.0
